"""Dataset entries and the files they stand for."""
