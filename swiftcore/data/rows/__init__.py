"""Raw rows of any accepted spelling become standard rows."""
