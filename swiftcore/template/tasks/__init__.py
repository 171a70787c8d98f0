"""Rows of the tasks that score texts: classes, likeness, fitting documents."""
