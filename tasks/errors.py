"""The one exception that a user is meant to read."""


class StudyError(Exception):
    """Something the user can mend: one sentence with what was expected, what was found, and what to do."""
