"""What happens, in which order. `road.py` reads like a table of contents."""
