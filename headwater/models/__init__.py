"""Models: loading, checking, adapters, precision, saving and publishing."""
