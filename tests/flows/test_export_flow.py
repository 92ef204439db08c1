"""An exported run answers with transformers, PEFT and FAISS alone as the study did, with the same cases shown."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import pandas as pd
import pytest
from command import COMMAND, Server, run
from plainly import plainly

from flows.export import export
from flows.files import writing_folder
from flows.serve.answerer import answer
from tasks.engine.adapter import load_state
from tasks.engine.identity import RECORD
from tasks.errors import StudyError
from tasks.records import Case, Prediction, read_images, read_table
from tasks.records.tuning import read_tuning
from tasks.settings import Study
from tasks.settings.comparison import changed

pytestmark = pytest.mark.slow

HOSPITAL = "hospital-2"
MANY = """
import json, runpy, sys
from pathlib import Path

folder, *arguments = sys.argv[1:]
sys.path.insert(0, folder)
for image, question in zip(arguments[::2], arguments[1::2]):
    sys.argv = ["ask.py", image, question]
    runpy.run_path(f"{folder}/ask.py", run_name="__main__")
    print("--", file=sys.stderr)
"""

ROWS = """
import io, runpy, sys

import faiss, PIL.Image, pandas

folder = sys.argv[1]
sys.path.insert(0, folder)
entries = pandas.read_parquet(f"{folder}/entries.parquet")
images = pandas.read_parquet(f"{folder}/images.parquet").set_index("image_id")
image = PIL.Image.open(io.BytesIO(images["png"][entries["image_id"][0]]))
sys.argv = ["ask.py", f"{folder}/first.png", entries["question"][0]]
image.save(f"{folder}/first.png")
done = runpy.run_path(f"{folder}/ask.py")
from library import encode

near, numbers = done["index"].search(encode(done["model"], image, entries["question"][0]), 1)
print(float(near[0, 0]) if numbers[0, 0] == entries["number"][0] else "another")
"""
"""How near an exported library's first entry lies to the same question about the same image, asked anew."""


@pytest.fixture(scope="module")
def study(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a small study of the embedded base was run."""
    folder = tmp_path_factory.mktemp("study")
    _base(folder)
    done = run(server, folder, studied())
    assert done.returncode == 0, done.stderr
    return folder


def studied(*more: str) -> list[str]:
    settings = ("dataset.images=10", "federation.rounds=1", "partition.hospitals=2", "evaluation.reliance=0")
    settings += ("evaluation.saliency=0", "federation.learning_rate=0.01", "model.name=base")
    return [str(COMMAND), "run", *(word for each in (*settings, *more) for word in ("--set", each))]


def _base(folder: Path) -> Path:
    from tasks.engine.identity import EMBEDDED

    return Path(shutil.copytree(EMBEDDED, folder / "base"))


@pytest.fixture
def artifacts(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That study's artifacts, this process standing beside them."""
    monkeypatch.chdir(study)
    return study / "artifacts"


def places(artifacts: Path) -> dict[str, Any]:
    """Where what is the hospital's lies."""
    references: dict[str, Any] = json.loads((artifacts / "latest/references.json").read_text())["hospitals"][HOSPITAL]
    return references


def predicted(artifacts: Path, count: int) -> list[Prediction]:
    """What the study answered to some of the hospital's test cases, of different answers."""
    folders = places(artifacts)["predictions"]
    rows = [row for each in folders for row in read_table(artifacts / each / "predictions.parquet", Prediction)]
    answered = [row for row in rows if row.configuration == "fed+rag"]
    return sorted(answered, key=lambda row: (row.prediction, row.case_id))[:: max(1, len(answered) // count)][:count]


def arguments(artifacts: Path, rows: Sequence[Prediction], work: Path) -> list[str]:
    """Image files and questions, as a user of ask.py gives them."""
    folder = artifacts / places(artifacts)["cases"]
    of = {case.id: case.image_id for case in read_table(folder / "cases.parquet", Case)}
    for image in read_images(folder / "images.parquet"):
        (work / f"{image.id.replace(':', '-')}.png").write_bytes(image.data)
    pairs = [(str(work / f"{of[row.case_id].replace(':', '-')}.png"), row.question) for row in rows]
    return [word for pair in pairs for word in pair]


@pytest.mark.parametrize("merge", [False, True])
def test_an_export_answers_as_the_study_did(
    server: Server, artifacts: Path, study: Path, tmp_path: Path, merge: bool
) -> None:
    answers_as_the_study_did(server, artifacts, study, tmp_path, merge)


def test_the_record_of_what_the_base_has_seen_goes_with_the_base(artifacts: Path, study: Path, tmp_path: Path) -> None:
    record = study / "base" / RECORD
    record.write_bytes(b"as it came")  # the run stays that of the same base
    try:
        export(artifacts / "latest", HOSPITAL, tmp_path / "out")
    finally:
        record.unlink()
    assert (tmp_path / "out/base" / RECORD).read_bytes() == b"as it came"


@pytest.mark.parametrize("merge", [False, True])
def test_a_trained_projector_and_a_mixture_are_exported(
    server: Server, study: Path, tmp_path: Path, merge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library compares what the tower sees, before that projector. It knows no near-duplicates of a new image."""
    copied = Path(shutil.copytree(study, tmp_path / "study", symlinks=True))
    monkeypatch.chdir(copied)
    settings = ("lora.projector=true", "retrieval.hide_copies=identical", "retrieval.mixture=true")
    done = run(server, copied, studied(*settings))
    assert done.returncode == 0, done.stderr
    assert read_tuning(copied / "artifacts" / places(copied / "artifacts")["tuning"]).weight > 0
    answers_as_the_study_did(server, copied / "artifacts", copied, tmp_path, merge)


@pytest.fixture(scope="module")
def tower_study(server: Server, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that trains LoRA on the vision tower too."""
    copied = Path(shutil.copytree(study, tmp_path_factory.mktemp("tower") / "study", symlinks=True))
    done = run(server, copied, studied("lora.tower_targets=[qkv]", "retrieval.hide_copies=identical"))
    assert done.returncode == 0, done.stderr
    return copied


def test_a_trained_tower_answers_and_is_exported(
    server: Server, tower_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases are found by what the tower saw untrained, and shown as it sees them trained."""
    monkeypatch.chdir(tower_study)
    artifacts = tower_study / "artifacts"
    references = json.loads((artifacts / "latest/references.json").read_text())
    learned = {name: each for name, each in load_state(artifacts / references["adapter"]).items() if ".visual." in name}
    assert len(learned) == 8  # A and B in each of the tower's four layers
    assert all(each.any() for name, each in learned.items() if "lora_B" in name)
    predictions = predicted(artifacts, 3)
    pairs = arguments(artifacts, predictions, tmp_path)
    for row, image, question in zip(predictions, pairs[::2], pairs[1::2], strict=True):
        reply = answer(artifacts / "latest", HOSPITAL, Path(image), question)
        assert reply.text == row.prediction
        assert reply.confidence == pytest.approx(row.confidence, abs=1e-3)
        assert [case.id for _, case in reply.retrieved] == list(row.neighbours)
    answers_as_the_study_did(server, artifacts, tower_study, tmp_path, merge=False)


def test_a_merged_tower_comes_with_a_library_of_what_it_sees(
    tower_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tower_study)
    apart, merged = (
        export(Path("artifacts/latest"), HOSPITAL, tmp_path / name, merge=name == "merged")
        for name in ("apart", "merged")
    )
    assert "this index was built anew" in (merged / "README.md").read_text()
    assert "built anew" not in (apart / "README.md").read_text()
    (tmp_path / "rows.py").write_text(ROWS)
    for folder in (apart, merged):
        process = plainly(tmp_path, tmp_path / "rows.py", str(folder))
        assert process.returncode == 0, process.stderr
        assert float(process.stdout.splitlines()[-1]) == pytest.approx(1, abs=1e-4)
    means = [json.loads((folder / "encoder.json").read_text())["image_mean"] for folder in (apart, merged)]
    assert means[0] != pytest.approx(means[1], abs=1e-3)
    row = predicted(tower_study / "artifacts", 1)
    process = plainly(tmp_path, merged / "ask.py", *arguments(tower_study / "artifacts", row, tmp_path))
    assert process.returncode == 0, process.stderr


def answers_as_the_study_did(server: Server, artifacts: Path, study: Path, tmp_path: Path, merge: bool) -> None:
    out = tmp_path / "taken"
    command = [str(COMMAND), "export", "artifacts/latest", "--hospital", HOSPITAL, str(out)]
    done = run(server, study, [*command, *(["--merge"] if merge else [])])
    assert done.returncode == 0, done.stderr
    moved = Path(shutil.move(out, tmp_path / "elsewhere"))
    rows = predicted(artifacts, 8)
    assert len({row.prediction for row in rows}) > 2 and all(row.neighbours for row in rows)
    (tmp_path / "many.py").write_text(MANY)
    process = plainly(tmp_path, tmp_path / "many.py", str(moved), *arguments(artifacts, rows, tmp_path))
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [row.prediction for row in rows]
    printed = [re.findall(r"phantom:\S+", part) for part in process.stderr.split("--\n")]
    assert printed[:-1] == [list(row.neighbours) for row in rows]
    assert (moved / "model").exists() == merge and (moved / "adapter").exists() != merge


def test_an_export_describes_itself(artifacts: Path, tmp_path: Path) -> None:
    out = export(artifacts / "latest", HOSPITAL, tmp_path / "taken")
    names = {"README.md", "ask.py", "library.py", "pixels.py", "base", "adapter", "index.faiss", "entries.parquet"}
    names |= {"images.parquet", "encoder.json", "library.json", "export.json"}
    assert {path.name for path in out.iterdir()} == names
    text = (out / "README.md").read_text()
    assert f"must stay at {HOSPITAL}" in text
    assert all(f"`{name}" in text for name in names - {"README.md"})
    entries = pd.read_parquet(out / "entries.parquet")
    cases = {case.id: case for case in read_table(artifacts / places(artifacts)["cases"] / "cases.parquet", Case)}
    assert set(entries["case_id"]) == {case.id for case in cases.values() if case.split == "train"}
    assert all(cases[row.case_id].answer == row.answer for row in entries.itertuples())
    assert sum(line.strip() != "" for line in (out / "ask.py").read_text().splitlines()) <= 25
    assert faiss.read_index(str(out / "index.faiss")).ntotal == len(entries)


def test_cases_of_the_image_itself_are_never_retrieved(artifacts: Path, tmp_path: Path) -> None:
    out = export(artifacts / "latest", HOSPITAL, tmp_path / "taken")
    entries = pd.read_parquet(out / "entries.parquet")
    images = pd.read_parquet(out / "images.parquet").set_index("image_id")
    (tmp_path / "own.png").write_bytes(images["png"][entries["image_id"][0]])
    process = plainly(tmp_path, out / "ask.py", str(tmp_path / "own.png"), entries["question"][0])
    assert process.returncode == 0, process.stderr
    printed = re.findall(r"phantom:\S+", process.stderr)
    assert len(printed) == 3
    assert not set(printed) & set(entries["case_id"][entries["image_id"] == entries["image_id"][0]])


def test_a_copy_is_hidden_and_its_patient_is_not(artifacts: Path, tmp_path: Path) -> None:
    """As in the study: of the asked image its copies and its own patient, whoever else a copy is said to be of."""
    out = export(artifacts / "latest", HOSPITAL, tmp_path / "taken")
    entries = pd.read_parquet(out / "entries.parquet")
    query_image, copy, *_ = entries["image_id"].unique()
    images = pd.read_parquet(out / "images.parquet").set_index("image_id")
    (tmp_path / "own.png").write_bytes(images["png"][query_image])
    rules = json.loads((out / "library.json").read_text())
    (out / "library.json").write_text(json.dumps(rules | {"copies": {query_image: [copy]}, "hide_patient": True}))

    def printed_images() -> list[str]:
        process = plainly(tmp_path, out / "ask.py", str(tmp_path / "own.png"), entries["question"][0])
        assert process.returncode == 0, process.stderr
        return [entries.set_index("case_id")["image_id"][case] for case in re.findall(r"phantom:\S+", process.stderr)]

    entries.assign(group=entries["image_id"].map({query_image: "one"}).fillna("other")).to_parquet(
        out / "entries.parquet"
    )
    assert len(printed_images()) == 3 and not {query_image, copy} & set(printed_images())
    entries.assign(group="one").to_parquet(out / "entries.parquet")
    assert not printed_images()


def test_a_folder_with_something_in_it_is_left_as_it_is(server: Server, artifacts: Path, study: Path) -> None:
    (study / "filled").mkdir()
    for path in (study / "filled/mine.txt", study / "file"):
        path.touch()
    for name in ("filled", "file", "file/below"):
        done = run(server, study, [str(COMMAND), "export", "artifacts/latest", name, "--hospital", HOSPITAL])
        assert done.returncode == 1
        assert "Expected a new or an empty folder, found" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in (study / "filled").iterdir()] == ["mine.txt"]


def test_another_base_is_refused_and_nothing_is_left(artifacts: Path, study: Path, tmp_path: Path) -> None:
    template = study / "base/chat_template.jinja"
    whole = template.read_text()
    template.write_text(whole + " ")
    try:
        with pytest.raises(StudyError, match=r"Expected the base .* found another there"):
            export(artifacts / "latest", HOSPITAL, tmp_path / "taken")
    finally:
        template.write_text(whole)
    with pytest.raises(StudyError, match="Expected --hospital to be one of hospital-1, hospital-2"):
        export(artifacts / "latest", "hospital-9", tmp_path / "taken")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="half"), writing_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
        raise ValueError("half")
    assert list((tmp_path / "out").iterdir()) == [] and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(StudyError, match="Cannot write"), writing_folder(Path("/proc/out")):
        pass
    with pytest.raises(StudyError, match="found files in it"), writing_folder(tmp_path / "out"):
        (tmp_path / "out/meanwhile").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "meanwhile"]


@pytest.mark.parametrize("part", ["model", "retrieval"])
def test_a_run_whose_images_were_pooled_is_refused(part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study = changed(Study(), {f"{part}.image_tokens": 16})
    place = SimpleNamespace(model=study.model, study=study)
    monkeypatch.setattr("flows.export.open_place", lambda *_, **__: place)
    with pytest.raises(
        StudyError, match=rf"found {part}\.image_tokens 16, which transformers alone cannot do: export a"
    ):
        export(tmp_path / "run", HOSPITAL, tmp_path / "out")
    assert not (tmp_path / "out").exists()
