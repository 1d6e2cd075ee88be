"""Forward passes: batches of packed rows, attention, the output head, scores."""
