"""What is wrong with a published file, as one sentence that says where.

Published datasets are other people's files: downloads break off, archives unpack into another folder, rows lack
fields or name files outside the dataset. Every such finding is a StudyError, made by `problem`.
"""

from tasks.errors import StudyError


class FindingError(StudyError):
    """One finding in a published file: `where: expected ..., found ...; remedy.`"""

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(f"{where}: {reason}; {remedy}.")
        self.reason = reason
        """The finding alone. It names no path, since artifacts keep it."""


def problem(where: str, expected: str, found: str, remedy: str) -> FindingError:
    """The error for one finding; only `where` may hold a path."""
    return FindingError(where, f"expected {expected}, found {found}", remedy)
