"""An image in DICOM JSON is the image of its file."""

import base64
import io
import json
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_samples import CANARY, dicom
from pydicom.uid import RLELossless

from flows.serve.user_question import read_sent
from tasks.errors import StudyError
from tasks.ingest.dicom_json import is_dicom_json

PIXELS = {
    "16 bits": (np.arange(48, dtype=np.uint16).reshape(6, 8) * 37, {"WindowCenter": 500, "WindowWidth": 900}),
    "signed, rescaled": (
        np.arange(-24, 24, dtype=np.int16).reshape(6, 8),
        {"RescaleSlope": 2, "RescaleIntercept": -1000},
    ),
    "8 bits, odd in number": (np.arange(35, dtype=np.uint8).reshape(5, 7), {}),
    "colour": (np.arange(144, dtype=np.uint8).reshape(6, 8, 3), {}),
    "frames": (np.arange(144, dtype=np.uint16).reshape(3, 6, 8), {}),
}


def model(file: bytes) -> dict[str, Any]:
    """What pydicom writes of a file, its pixels inline."""
    return json.loads(pydicom.dcmread(io.BytesIO(file)).to_json())


@pytest.mark.parametrize("name", PIXELS)
def test_the_picture_is_that_of_the_file(name: str) -> None:
    pixels, tags = PIXELS[name]
    file = dicom(pixels, **tags)
    expected = read_sent(file, "a")
    written = model(file)
    assert CANARY in json.dumps(written)
    for each in (json.dumps(written), json.dumps([written], indent=1)):
        assert is_dicom_json(each.encode())
        assert read_sent(each.encode(), "a") == expected


def test_compressed_pixels_are_read_by_the_transfer_syntax_that_is_named() -> None:
    file = pydicom.dcmread(io.BytesIO(dicom(np.arange(48, dtype=np.uint16).reshape(6, 8))))
    expected = read_sent(dicom(np.arange(48, dtype=np.uint16).reshape(6, 8)), "a")
    file.compress(RLELossless)
    written = json.loads(file.to_json()) | {"00083002": {"vr": "UI", "Value": [RLELossless]}}
    assert read_sent(json.dumps(written).encode(), "a") == expected


def without_pixels(**more: Any) -> bytes:
    written = model(dicom(np.arange(48, dtype=np.uint16).reshape(6, 8)))
    del written["7FE00010"]
    return json.dumps(written | more).encode()


WRONG = {
    "no pixels": (without_pixels(), "found no pixels"),
    "at an address": (
        without_pixels(**{"7FE00010": {"vr": "OW", "BulkDataURI": "http://127.0.0.1/secret"}}),
        "not inline",
    ),
    "two images": (b"[" + without_pixels() + b"," + without_pixels() + b"]", "found 2 images"),
    "cut": (without_pixels()[:-9], "broken JSON"),
    "no base64": (without_pixels(**{"7FE00010": {"vr": "OW", "InlineBinary": "Zwetschge"}}), "found"),
    "too few pixels": (
        without_pixels(**{"7FE00010": {"vr": "OW", "InlineBinary": base64.b64encode(bytes(8)).decode()}}),
        "cannot be decoded",
    ),
    "a list of nothing": (without_pixels(**{"00280010": {"vr": "US", "Value": [CANARY]}}), "found"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_one_sentence_without_the_patient(name: str) -> None:
    data, found = WRONG[name]
    with pytest.raises(StudyError, match=found) as error:
        read_sent(data, "a")
    assert CANARY not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"{}", b'{"a": 1}', b"\x89PNG", b"[1]", b""])
def test_other_bytes_are_no_dicom_json(data: bytes) -> None:
    assert not is_dicom_json(data)
