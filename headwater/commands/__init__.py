"""Commands of the command line, one a file: a frozen `Config` and `run(config)`; they never import each other."""
