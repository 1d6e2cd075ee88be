"""Run directories and the typed results in them: commands write them, the report and notebooks read them."""
