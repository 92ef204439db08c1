"""PathVQA: the real files, and truncated images."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import pandas as pd
import PIL.Image
import pytest
from ingest_samples import picture, real, write_parquet

from tasks.errors import StudyError
from tasks.ingest.path_vqa import read
from tasks.ingest.source import Source


@pytest.fixture(scope="module")
def source() -> Source:
    return read(real("path-vqa-hf"))


def test_real_counts(source: Source) -> None:
    paths = sorted((real("path-vqa-hf") / "data").glob("*.parquet"))
    table = pd.concat({path.name.split("-")[0]: pd.read_parquet(path) for path in paths}, names=["split"]).reset_index()
    kinds = table["answer"].str.strip().str.lower().isin(["yes", "no"]).map({True: "closed", False: "open"})
    found = Counter((case.split, case.kind) for case in source.cases)
    assert found == Counter(zip(table["split"], kinds, strict=True))
    assert Counter(case.split for case in source.cases) == {"train": 502, "validation": 74, "test": 51}
    digests = {hashlib.sha256(image["bytes"]).hexdigest()[:16] for image in table["image"]}
    assert {image.id for image in source.images} == digests
    assert {case.language for case in source.cases} == {"en"}
    assert source.rejected == []


def test_real_images_are_kept_in_every_mode(source: Source) -> None:
    modes = Counter(PIL.Image.open(io.BytesIO(image.data)).mode for image in source.images)
    assert modes.keys() == {"RGB", "CMYK", "L"}
    assert modes.total() == 90


def test_truncated_images_are_rejected_with_file_and_row(tmp_path: Path) -> None:
    sink = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 90).save(sink, "JPEG")
    rows = [(picture(1, "CMYK", form="JPEG"), "a?", "yes")] * 99 + [(sink.getvalue()[:900], "b?", "no")]
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows)  # type: ignore[arg-type]
    found = read(tmp_path, max_rejected=0.01)
    assert len(found.cases) == 99
    (rejected,) = found.rejected
    assert (rejected.file, rejected.row) == ("train-00000-of-00001.parquet", 100)
    assert rejected.reason.startswith("expected a whole image, found a damaged image")
    with pytest.raises(StudyError, match=r"1 of 100 rows are unusable, .*=0 allows .*; the first is .*, row 100: exp"):
        read(tmp_path, max_rejected=0)
