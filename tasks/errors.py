"""The one exception that a user is meant to read, and those that no file is to blame for."""

OURS = (MemoryError, NameError)
"""Too little memory, or a mistake of this project: passed on where other people's decoders may raise anything else."""


class StudyError(Exception):
    """Something the user can mend: one sentence with what was expected, what was found, and what to do."""
