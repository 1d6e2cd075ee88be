"""Run directories: what a command computes is written here, what is shown is read from here."""
