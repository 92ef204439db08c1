"""Small published-looking datasets for the tests of tasks/ingest."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REAL = Path(__file__).parents[2] / "shared" / "datasets"


def real(name: str) -> Path:
    """A real dataset's folder; the test is skipped where it is absent."""
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


def picture(colour: int = 0, mode: str = "RGB", size: tuple[int, int] = (8, 6), form: str = "PNG") -> bytes:
    """A small image; gray levels stand for its identity."""
    sink = io.BytesIO()
    PIL.Image.new("L", size, colour).convert(mode).save(sink, form)
    return sink.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds hardly a byte of it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def rad_row(qid: Any, image: str = "synpic1.jpg", **fields: Any) -> dict[str, Any]:
    """A row of VQA-RAD as MEVF publishes it."""
    row = {
        "qid": qid,
        "phrase_type": "freeform",
        "image_name": image,
        "image_organ": "HEAD",
        "question": f"question {qid}?",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }
    return row | fields


def osf_row(qid: Any, image: str = "synpic1.jpg", **fields: Any) -> dict[str, Any]:
    """A row of VQA-RAD as published on OSF."""
    more = {"qid_linked_id": "a", "image_case_url": "https://medpix/1", "evaluation": "evaluated", "bbox": None}
    return rad_row(qid, image) | more | fields


def slake_row(qid: int, number: int = 1, **fields: Any) -> dict[str, Any]:
    """A row of SLAKE about image `number`."""
    row = {
        "img_id": number,
        "img_name": f"xmlab{number}/source.jpg",
        "question": f"question {qid}?",
        "answer": "Lung",
        "q_lang": "en",
        "location": "Brain_Tissue",
        "modality": "X-Ray",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
        "content_type": "Organ",
    }
    return row | fields


def write_osf(root: Path, rows: list[Any], images: int = 3) -> Path:
    write_json(root / "VQA_RAD Dataset Public.json", rows)
    for number in range(1, images + 1):
        write_bytes(root / "VQA_RAD Image Folder" / f"synpic{number}.jpg", picture(number, form="JPEG"))
    return root


def write_mevf(root: Path, train: list[Any], test: list[Any] | None = None, images: int = 3) -> Path:
    write_json(root / "trainset.json", train)
    if test is not None:
        write_json(root / "testset.json", test)
    for number in range(1, images + 1):
        write_bytes(root / "images" / f"synpic{number}.jpg", picture(number, form="JPEG"))
    return root


def write_slake(root: Path, images: int = 3, **splits: list[Any]) -> Path:
    for name, rows in splits.items():
        write_json(root / f"{name}.json", rows)
    for number in range(1, images + 1):
        write_bytes(root / "imgs" / f"xmlab{number}" / "source.jpg", picture(number, form="JPEG"))
    return root


def write_parquet(path: Path, rows: list[tuple[bytes | None, str | None, str | None]]) -> None:
    """A file of the Hugging Face layout, from (image bytes, question, answer)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "image": pa.array([{"bytes": data, "path": None} for data, _, _ in rows], image),
        "question": pa.array([question for _, question, _ in rows], pa.string()),
        "answer": pa.array([answer for _, _, answer in rows], pa.string()),
    }
    pq.write_table(pa.table(columns), path)
