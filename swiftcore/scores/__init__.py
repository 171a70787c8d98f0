"""Scores of a text against another: what evaluation and training both measure by."""
