"""Data files, read row by row."""
