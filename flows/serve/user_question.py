"""Reads and checks a user's image and question before a model is loaded."""

from pathlib import Path

from tasks.errors import StudyError
from tasks.ingest.finding import FindingError
from tasks.ingest.pictures import read_image
from tasks.records import Image

QUERY_ID = "asked"
"""Id of the user's image, and of the case made of the question about it."""


def read_question(image: Path, question: str) -> Image:
    """Read the user's image.

    Raises StudyError if it cannot be read or the question is empty.
    """
    if not question.strip():
        raise StudyError('Expected a question, found none: write it in quotes, as "Is there a mass?".')
    try:
        return Image(QUERY_ID, *read_image(image, str(image)))
    except FindingError as error:  # its full message speaks of a dataset's rows
        raise StudyError(f"{image}: {error.reason}; name an image file, as PNG, JPEG, TIFF or DICOM.") from None
