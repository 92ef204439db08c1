"""Random damage to published files: one sentence, or a source that accounts for every row."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_samples import picture as image
from ingest_samples import rad_row, slake_row, write_mevf, write_parquet, write_slake
from test_ingest_captions import medpix_row, write_medpix, write_roco, write_rocov2
from test_ingest_choices import omni_row, pmc_row, write_omni, write_pmc
from test_ingest_table import ROWS, write_table

from tasks.errors import StudyError
from tasks.ingest.datasets import Options, ingest
from tasks.ingest.source import Source, check


def path_vqa(root: Path) -> Path:
    write_parquet(root / "train-00000-of-00001.parquet", [(image(n), "a?", "yes") for n in range(3)])
    return root


SAMPLES: dict[str, tuple[str, Callable[[Path], Path], int]] = {
    "MEVF": ("vqa-rad", lambda root: write_mevf(root, [rad_row(n, f"synpic{n + 1}.jpg") for n in range(3)]), 3),
    "slake": ("slake", lambda root: write_slake(root, train=[slake_row(n, n + 1) for n in range(3)]), 3),
    "path-vqa": ("path-vqa", path_vqa, 3),
    "omnimedvqa": ("omnimedvqa", lambda root: write_omni(root, a=[omni_row(n) for n in range(3)]), 3),
    "pmc-vqa": ("pmc-vqa", lambda root: write_pmc(root, train=[pmc_row(n) for n in range(3)]), 3),
    "roco": ("roco", write_roco, 3),
    "rocov2": ("rocov2", write_rocov2, 3),
    "medpix": (
        "medpix",
        lambda root: write_medpix(root, [medpix_row(n) | {"U_id": f"MPX{n + 1}"} for n in range(3)]),
        3,
    ),
    "csv": ("table", lambda root: write_table(root, "csv", ROWS), 3),
    "jsonl": ("table", lambda root: write_table(root, "jsonl", ROWS), 3),
    "parquet": ("table", lambda root: write_table(root, "parquet", ROWS), 3),
}
IMAGES = {".png", ".jpg", ".dcm"}
LINES = {"cases.jsonl", "captions.txt"}
"""Files of which every line that is not blank is a row, whatever stands in it."""


def damage(data: st.DataObject, path: Path) -> None:
    """Some bytes of the file changed, removed or put in."""
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        length = data.draw(st.sampled_from([1, 1, 1, 20, 10**6]))
        content[place : place + length] = data.draw(st.binary(max_size=3))
    path.write_bytes(bytes(content))


def accounted(source: Source) -> int:
    left_out = sum(count for note, count in source.notes.items() if "left out" in note)
    return len(source.records) + len(source.rejected) + left_out


@pytest.mark.parametrize("sample", SAMPLES)
@settings(deadline=None, max_examples=40)  # the machine may be busy
@given(data=st.data())
def test_damage_ends_in_a_sentence_or_an_account_of_every_row(sample: str, data: st.DataObject) -> None:
    name, write, rows = SAMPLES[sample]
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        assert accounted(read(name, root)) == rows
        broken = data.draw(st.sampled_from(files))
        damage(data, broken)
        try:
            source = read(name, root)
        except StudyError as error:
            assert "\n" not in str(error)
            return
        check(source)
        assert all(each.row >= 1 and each.reason.startswith("expected ") for each in source.rejected)
        assert not any(folder in each.file + each.reason for each in source.rejected)
        if broken.suffix in IMAGES:
            assert accounted(source) == rows
        if broken.name in LINES and broken.parent.name != "non-radiology":
            lines = sum(bool(line.strip()) for line in broken.read_bytes().split(b"\n"))
            assert accounted(source) == lines + (2 if sample == "roco" else 0)  # of its two other splits


def read(name: str, root: Path) -> Source:
    ask: dict[str, Any] = {"language": "en", "frames": False, "test_fraction": 0.2, "images": 4, "seed": 0}
    return ingest([(name, root)], Options(**ask, test="published", max_rejected=1.0))
