"""Reads and checks a user's image and question before a model is loaded."""

from pathlib import Path

from tasks.errors import StudyError
from tasks.ingest.dicom import DicomError
from tasks.ingest.dicom_json import is_dicom_json, to_file
from tasks.ingest.finding import FindingError
from tasks.ingest.pictures import read_image
from tasks.records import Image

QUERY_ID = "asked"
"""Id of the user's image, and of the case made of the question about it."""


def read_question(image: Path, question: str) -> Image:
    """Read the user's image.

    Raises StudyError if it cannot be read or the question is empty.
    """
    refuse_empty(question)
    return _read(image, str(image), QUERY_ID)


def read_sent(data: bytes, name: str) -> Image:
    """Read an image that was sent as bytes, as those of an image file or as DICOM JSON; `name` becomes its id.

    Raises StudyError if it is not a whole image.
    """
    where = "The image that was sent"
    try:
        return _read(to_file(data) if is_dicom_json(data) else data, where, name)
    except DicomError as error:
        raise StudyError(f"{where}: expected the DICOM JSON of an image, found {error}: {error.remedy}.") from None


def refuse_empty(question: str) -> None:
    """Raise StudyError if a question is empty."""
    if not question.strip():
        raise StudyError('Expected a question, found none: write it in quotes, as "Is there a mass?".')


def _read(source: Path | bytes, where: str, name: str) -> Image:
    try:
        return Image(name, *read_image(source, where))
    except FindingError as error:  # its full message speaks of a dataset's rows
        raise StudyError(f"{where}: {error.reason}; name an image file, as PNG, JPEG, TIFF or DICOM.") from None
