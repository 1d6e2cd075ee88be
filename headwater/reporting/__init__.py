"""The report: one HTML page of runs, with figures and tables. It reads typed results, and never imports torch."""
