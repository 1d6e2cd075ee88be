"""Preference data: reading, layouts, truncation, tokens, splits and selection; starts without torch."""
