"""What is counted of answers withheld where a model is unsure."""

KINDS = ("closed", "open")


COLUMNS = ("n", "answered", "right", "right_if_all_were_answered")
"""Counted of each kind of question, over each image."""
