"""Where the preference is decided: accuracy at every prefix, the signal depth, and the ratio to keep."""
