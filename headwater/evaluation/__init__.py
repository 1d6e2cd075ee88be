"""Evaluation of reward models on pairs and benchmarks, and of policies by judges, with intervals."""
