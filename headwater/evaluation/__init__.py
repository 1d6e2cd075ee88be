"""Which answer is better, and how sure are we."""
