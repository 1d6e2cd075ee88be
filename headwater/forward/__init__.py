"""Forward passes: packed batches, tree attention, the output head and the scores of responses."""
