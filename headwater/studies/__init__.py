"""Studies: sequences of commands, whose modules may import several commands."""
