"""A training run: its options, data, trainer, callbacks, metrics, reference model and checkpoints."""
