"""Pairs and decoded responses token by token: what a model says after every token."""
