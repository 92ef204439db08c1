"""Forgetting shows what will go and asks first; a dry run changes nothing and says what the real one removes."""

from pathlib import Path

import pytest
from ingest_samples import picture
from typer.testing import CliRunner

from flows.cli import data
from flows.cli import main as cli
from flows.forget import forget
from tasks.cases.withdrawn import FORGOTTEN
from tasks.errors import StudyError
from tasks.records import Case, Image, ImagePair, Prediction, read_table, write_table
from tasks.store import writing

CASES = [Case(f"t:{n}", f"image-{n}", "Is it?", "yes", "closed", "train", "table", "en") for n in range(3)]
WORDS = ["forget", "--hospital", "north", "--patient", "image-1"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital with three patients, and two stages of which one is not known."""
    monkeypatch.chdir(tmp_path)
    with writing("hospitals/north", "cases", "0") as folder:
        tables = {
            "cases.parquet": (Case, CASES),
            "images.parquet": (Image, [Image(each.image_id, picture(), 8, 8) for each in CASES]),
            "copies.parquet": (ImagePair, []),
        }
        for name, (record, rows) in tables.items():
            with folder.open(name) as sink:
                write_table(sink, record, rows)
    with writing("hospitals/north", "predictions", "0") as folder, folder.open("predictions.parquet") as sink:
        rows = [Prediction("fed", each.id, "north", "closed", "Is it?", "yes", "no", ()) for each in CASES]
        write_table(sink, Prediction, rows)
    with writing("hospitals/north", "explained", "0") as folder:
        folder.write("map.png", b"of somebody")
    (tmp_path / "artifacts/hospitals/north/report.html").write_text("page", encoding="utf-8")
    return tmp_path / "artifacts"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def patients(store: Path) -> set[str]:
    return {case.image_id for case in read_table(store / "hospitals/north/cases/0/cases.parquet", Case)}


def test_a_dry_run_changes_nothing_and_says_what_the_real_one_removes(store: Path) -> None:
    before = tree(store)
    planned = forget("north", "image-1", dry=True)
    assert {path: held for path, held in tree(store).items() if not path.endswith(".lock")} == before
    assert len(planned.removed) == 4
    assert forget("north", "image-1") == planned
    assert patients(store) == {"image-0", "image-2"}


@pytest.mark.parametrize(
    ("more", "answer", "gone"),
    [(["--yes"], "", True), (["--dry-run"], "", False), (["--dry-run", "--yes"], "", False), ([], "y\n", True)]
    + [([], answer, False) for answer in ("n\n", "\n", "")],
)
def test_what_will_be_removed_is_listed_and_removed_once_confirmed(
    store: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], answer: str, gone: bool
) -> None:
    monkeypatch.setattr(data, "_somebody_is_there", lambda: True)
    result = CliRunner().invoke(cli.app, [*WORDS, *more], input=answer, env={"COLUMNS": "200"})
    assert ("image-1" not in patients(store)) == gone
    assert (store / "hospitals/north" / FORGOTTEN).exists() == gone
    assert ("To be removed at north" in result.output) == (more != ["--yes"])
    assert "hospitals/north/cases/0" in result.output and "cases 1" in result.output
    assert ("Forgotten at north" in result.output) == gone


def test_a_script_that_does_not_say_yes_is_refused(store: Path) -> None:
    before = tree(store)
    result = CliRunner().invoke(cli.app, WORDS)
    assert isinstance(result.exception, StudyError)
    assert str(result.exception).startswith("Expected --yes or --dry-run where nobody can be asked, found neither")
    assert tree(store) == before
