"""Rewards and likelihoods of responses under trained models; sampling of responses."""
