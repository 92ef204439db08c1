"""Errors for faults in published files, as one sentence that says where.

Published datasets come from others: downloads break off, archives unpack into another folder, rows lack fields or name
files outside the dataset. `problem` makes the StudyError for each of these.
"""

from tasks.errors import StudyError


class FindingError(StudyError):
    """One fault in a published file: `where: expected ..., found ...; remedy.`"""

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(f"{where}: {reason}; {remedy}.")
        self.reason = reason
        """The fault without place and remedy. It names no path, since artifacts keep it."""


def problem(where: str, expected: str, found: str, remedy: str) -> FindingError:
    """Make the error for one fault; only `where` may contain a path."""
    return FindingError(where, f"expected {expected}, found {found}", remedy)
