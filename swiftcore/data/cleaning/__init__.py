"""What is taken out of standard rows: near copies, filtered, private and contaminated ones."""
