"""What a hospital has trained in which round, where its later rounds follow from it, and nobody can send it back."""

from pathlib import Path

from tasks.federate.remote.durable import read_note, write_note

NAME = "trained.json"


class TrainedRecord:
    """The record of one hospital, in a file that survives the process.

    Args:
        path: of the file; the first entry makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, study: str, number: int, place: str) -> None:
        """Note where what was trained in a round of a study is; a round that is trained again replaces it."""
        noted = read_note(self._path)
        noted.setdefault(study, {})[str(number)] = place
        write_note(self._path, noted)

    def rounds(self, study: str) -> dict[int, str]:
        """Where what was trained is, by round."""
        return {int(number): place for number, place in read_note(self._path).get(study, {}).items()}
