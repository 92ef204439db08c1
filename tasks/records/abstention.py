"""The columns in which withheld answers are counted."""

KINDS = ("closed", "open")


COLUMNS = ("n", "answered", "right", "right_if_all_were_answered")
"""Counted for each image and each kind of question."""
