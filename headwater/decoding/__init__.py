"""Decoding with a policy and its reference: strategies, speculation, KL to the reference, reward–KL frontiers."""
