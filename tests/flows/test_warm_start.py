"""A federation goes on from last night's adapter: what is reused, what is told, and what is refused."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Server, run
from engine_samples import picture
from ingest_samples import write_bytes
from safetensors.torch import load_file
from test_run_folder import SPARSE, run_of

from flows.federation import about
from flows.forget import trained_on
from flows.outside import outside
from flows.report import write_card, write_pages
from flows.start import former_run, refuse_no_adapter
from tasks.audit.start import questions_of, trained_before
from tasks.cases.withdrawn import FORGOTTEN
from tasks.engine.identity import choose_model
from tasks.engine.vision import FEATURES, load_features
from tasks.errors import StudyError
from tasks.features.reuse import unchanged
from tasks.records import Case, Image, Split
from tasks.records.federation import ADAPTER_FILE
from tasks.report.start import start_sentence
from tasks.settings import Study
from tasks.store import file_digest
from tasks.store.manifest import digest_of
from tasks.store.runs import point_latest

WARM = Study.model_validate({"federation": {"warm_start": "latest"}})


def case(number: int, image: str, split: Split, question: str = "Is it?") -> Case:
    return Case(f"table:{number}", image, question, "yes", "closed", split, "table", "en")


def test_a_leak_is_a_case_that_was_trained_on_whatever_the_image_is_called_now() -> None:
    pixels = {"a": b"A", "b": b"B", "c": b"C", "renamed": b"A"}
    before = questions_of([case(1, "a", "train"), case(2, "b", "train")], pixels)
    now = [case(1, "c", "train"), case(2, "renamed", "test", "Where?"), case(3, "b", "test"), case(4, "c", "test")]
    assert trained_before(now, before, pixels) == ["table:2", "table:3"]
    # The split itself gives this image to both sides: the run's own audit counts it, unless the question is the same.
    shared = [case(1, "a", "train", "Where?"), case(2, "a", "test", "When?"), case(3, "a", "test", "IS it?")]
    assert trained_before(shared, before, pixels) == ["table:3"]
    assert trained_before([case(1, "a", "train"), case(2, "c", "test")], before, pixels) == []


def test_images_are_known_by_id_and_bytes() -> None:
    before = [Image("a", b"1", 1, 1), Image("b", b"2", 1, 1)]
    now = [Image("c", b"1", 1, 1), Image("b", b"2", 1, 1), Image("a", b"other", 1, 1)]
    assert list(unchanged(now, before)) == ["b"]


def test_what_training_began_with_is_told_in_words() -> None:
    assert start_sentence(None) == "Training began with a fresh adapter."
    told: Any = {"run": "20260101-000000-0000", "folder": None, "path": "shared/adapter/0", "adapter": "abc"}
    assert "run 20260101-000000-0000 (sha256 abc)" in start_sentence(told)
    other: Any = {"run": None, "folder": "theirs", "path": None, "adapter": "abc"}
    assert "theirs, sha256 abc" in start_sentence(other) and "not known here" in start_sentence(other)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation": {"warm_start": "latest", "runtime": "flower"}}, "another federation.warm_start"),
        (
            {"federation": {"warm_start": "latest", "privacy": {"unit": "patient"}}, "retrieval": {"k": 0}},
            "expected federation.warm_start off with privacy.unit patient",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Study.model_validate(changes)


def test_what_a_hospital_trains_does_not_depend_on_the_name_of_the_start() -> None:
    other = Study.model_validate({"federation": {"warm_start": "current", "initial_adapter": "there"}})
    assert other.federation.local == Study().federation.local


def test_a_comparison_of_warm_starts_is_refused() -> None:
    with pytest.raises(StudyError, match=r"Expected federation\.warm_start off in a comparison"):
        outside(WARM)


def test_hospitals_elsewhere_are_not_told_where_an_adapter_lies() -> None:
    study = Study.model_validate({"federation": {"runtime": "flower", "initial_adapter": "/somebody/has/it"}})
    assert "somebody" not in json.dumps(about(study))


@pytest.fixture
def _former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run of the embedded base, as `latest`."""
    monkeypatch.chdir(tmp_path)
    run = run_of(SPARSE["one kind each"])
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["model"]["content"] = choose_model(Study().model).content
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["results.json"]["sha256"] = file_digest(run / "results.json")
    manifest["digest"] = digest_of(manifest["files"])
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    point_latest(run)


@pytest.mark.usefixtures("_former")
def test_a_run_of_another_base_or_adapter_is_refused_in_a_sentence() -> None:
    model = choose_model(Study().model)
    found = former_run(WARM, model)
    assert found and found.name == Path("artifacts/latest").resolve().name
    assert former_run(Study(), model) is None
    assert former_run(Study.model_validate({"federation": {"warm_start": "current"}}), model) is None
    with pytest.raises(StudyError, match="to be of the base embedded, found another base"):
        former_run(WARM, model.model_copy(update={"content": "other"}))
    for name, value in (("r", 8), ("targets", ("o_proj",)), ("alpha", 1), ("projector", True)):
        other = WARM.model_copy(update={"lora": WARM.lora.model_copy(update={name: value})})
        with pytest.raises(StudyError, match=rf"to have lora\.{name}=.*, found .*: set federation\.warm_start=off"):
            former_run(other, model)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"initial_adapter to be a folder with adapter_model\.safetensors"):
        refuse_no_adapter(Study.model_validate({"federation": {"initial_adapter": str(tmp_path)}}))
    (tmp_path / ADAPTER_FILE).touch()
    refuse_no_adapter(Study.model_validate({"federation": {"initial_adapter": str(tmp_path)}}))


def write_table(root: Path, rows: Sequence[tuple[str, int, str]]) -> None:
    """An export of two hospitals, each with a modality of its own: it, the number of the image, the split."""
    with (root / "cases.csv").open("w", newline="", encoding="utf-8") as sink:
        table = csv.writer(sink)
        table.writerow(["image", "question", "answer", "modality", "split"])
        for modality, number, split in rows:
            table.writerow([f"{modality}-{number}.png", "Is it dark?", "yes" if number % 2 else "no", modality, split])
            write_bytes(root / f"{modality}-{number}.png", picture(56, 56, 100 * len(modality) + number))


NIGHT_1 = [("CT", n, "test" if n > 6 else "train") for n in range(10)]
NIGHT_1 += [("MRI", n, "test" if n > 4 else "train") for n in range(7)]
NIGHT_2 = [*NIGHT_1, ("MRI", 7, "train"), ("MRI", 8, "train")]
LEAKING = [("CT", 0, "test") if row == ("CT", 0, "train") else row for row in NIGHT_2]


class Nights:
    """A study of a table that grows, run night after night."""

    def __init__(self, folder: Path, server: Server, model: Path) -> None:
        self.folder, self.server = folder, server
        settings = (f"model.name={model}", "dataset.name=table", "dataset.root=export", "partition.scheme=modality")
        few = (
            "partition.hospitals=2",
            "federation.rounds=1",
            "evaluation.max_new_tokens=2",
            "evaluation.min_cell=1",
            "evaluation.reliance=0",
        )
        every = (*settings, *few, "evaluation.saliency=0", "federation.warm_start=latest")
        self.command = [str(COMMAND), "run", *(word for each in every for word in ("--set", each))]
        (folder / "export").mkdir()

    def run(self, rows: Sequence[tuple[str, int, str]], *more: str) -> tuple[str, dict[str, Any]]:
        """What the command said, and the results of its run."""
        write_table(self.folder / "export", rows)
        done = run(self.server, self.folder, [*self.command, *more])
        assert done.returncode == 0, done.stderr
        return done.stderr, json.loads((self.latest / "results.json").read_text(encoding="utf-8"))

    @property
    def latest(self) -> Path:
        return (self.folder / "artifacts/latest").resolve()

    def place(self, hospital: str, stage: str) -> Path:
        references = json.loads((self.latest / "references.json").read_text(encoding="utf-8"))
        return self.folder / "artifacts" / str(references["hospitals"][hospital][stage])

    def trained(self) -> set[str]:
        return {name for name, state in self.server.task_states().items() if state == "Completed"}


@pytest.mark.slow
def test_nights_go_on_from_one_another(
    server: Server, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(tmp_path, server, tiny_folder)
    said, results = nights.run(NIGHT_1)
    assert "starts from a fresh adapter" in said and results["start"] is None
    said, results = nights.run(NIGHT_1)
    assert "no hospital has other cases" in said and results["start"] is None
    assert nights.trained() == set()  # nothing came, and nothing is trained

    first, taught = nights.latest.name, nights.place("hospital-2", "cases")
    adapter = nights.place("hospital-1", "adapter") / ADAPTER_FILE
    seen = {name: load_features(nights.place(name, "features") / FEATURES) for name in ("hospital-1", "hospital-2")}
    library = nights.place("hospital-1", "library")
    baseline = results["baselines"]["base"]["hospitals"]["hospital-1"]
    said, results = nights.run(NIGHT_2)
    assert "reused: features of 17 of 19 images" in said
    assert f"since {first}: other cases at hospital-2; reused: libraries of 1 of 2 hospitals" in said
    digest = file_digest(adapter)
    start = {"run": first, "folder": None, "path": adapter.parent.relative_to(tmp_path / "artifacts").as_posix()}
    assert results["start"] == start | {"adapter": digest}
    assert {"vision", "features hospital-2", "library hospital-2", "start adapter"} < nights.trained()
    assert not {"library hospital-1", "baselines hospital-1", "initial adapter"} & nights.trained()
    assert nights.place("hospital-1", "library") == library
    for name, before in seen.items():
        after = load_features(nights.place(name, "features") / FEATURES)
        assert all((after.of(image) == before.of(image)).all() for image in before.starts)
    assert len(after.starts) == len(before.starts) + 2
    state = json.loads((nights.place("hospital-1", "adapter") / "manifest.json").read_text())["inputs"][0]
    begun = load_file(tmp_path / "artifacts" / state / ADAPTER_FILE)
    was = load_file(adapter)
    assert begun.keys() == was.keys() and all((begun[name] == was[name]).all() for name in was)
    assert results["baselines"]["base"]["hospitals"]["hospital-1"] == baseline  # the base, not last night's adapter
    monkeypatch.chdir(tmp_path)
    texts = [write_pages(nights.latest)[0], write_card(nights.latest), nights.latest / "results.md"]
    assert all(first in text.read_text() and digest in text.read_text() for text in texts)

    there = tmp_path / "artifacts"
    learned = nights.place("hospital-2", "adapter").relative_to(there).as_posix()
    assert nights.place("hospital-2", "cases") != taught  # of the first night, which `forget` must lead on from
    assert learned in trained_on(Path("artifacts/hospitals/hospital-2"), {taught.relative_to(there).as_posix()})

    second = nights.latest
    said, results = nights.run(NIGHT_2)
    assert nights.trained() == set() and results["start"]["run"] == first
    write_table(tmp_path / "export", LEAKING)
    refused = run(server, tmp_path, nights.command)
    assert refused.returncode == 1
    assert "Expected no test case among those that the adapter of" in refused.stderr
    assert "was trained on, found 1 of 6: the scores would be of what it was taught" in refused.stderr

    row = {"digest": "0", "images": [], "on": "2026-01-01"}
    withdrawn = json.dumps([row | {"adapters": [learned]}])
    (tmp_path / "artifacts/hospitals/hospital-2" / FORGOTTEN).write_text(withdrawn)
    said, results = nights.run([*NIGHT_2, ("CT", 10, "train")])
    assert "a patient of hospital-2 withdrew" in said and results["start"] is None

    shutil.copytree(second.parents[1] / learned, tmp_path / "theirs")
    outside = ("--set", "federation.warm_start=off", "--set", "federation.initial_adapter=theirs")
    said, results = nights.run(NIGHT_2, *outside)
    assert results["start"] == {
        "run": None,
        "folder": "theirs",
        "path": None,
        "adapter": file_digest(tmp_path / "theirs" / ADAPTER_FILE),
    }
    assert "trained elsewhere" in (nights.latest / "card.md").read_text()
