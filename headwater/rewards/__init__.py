"""Rewards and likelihoods that finished models give to responses; sampling from them."""
