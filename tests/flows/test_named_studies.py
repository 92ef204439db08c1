"""Studies by name: the files in data/studies, and what `--study` makes of them before anything starts."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import Result
from command import COMMAND, TOP, shell
from ingest_samples import real
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.cli import studies
from flows.cli.named_studies import names
from flows.cli.settings_file import load_comparison, load_study
from tasks.errors import StudyError
from tasks.ingest.datasets import Options, ingest
from tasks.partition.disjoint import disjoint
from tasks.records import Case
from tasks.settings import Dataset, Study
from tasks.settings.comparison import cells

FILES = sorted((TOP / "data/studies").iterdir())
NAMES = ["path-vqa", "slake", "slake+vqa-rad", "vqa-rad"]
REAL = {"slake": "slake", "vqa-rad": "vqa-rad", "path-vqa": "path-vqa-hf"}
WIDE = {"COLUMNS": "4000", "TERM": "dumb", "NO_COLOR": "1"}
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


class StartedError(Exception):
    """The command has come as far as to set its flow up."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """The studies that a command was about to run; it goes no further."""
    found: list[Study] = []

    def stop(*_: object) -> None:
        raise StartedError

    monkeypatch.setattr(studies, "refuse_absent", found.append)
    monkeypatch.setattr(studies, "refuse_absent_all", found.extend)
    monkeypatch.setattr(studies, "flow_running", stop)
    return found


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), env=WIDE)


def refused(*arguments: str) -> str:
    """The one sentence that a command ends with."""
    found = invoke(*arguments)
    assert isinstance(found.exception, StudyError), found.output
    assert found.output == ""
    return str(found.exception)


def sources(file: Path) -> list[str]:
    """Names of the datasets of a study, as its file writes them."""
    name = yaml.safe_load(file.read_text(encoding="utf-8"))["dataset"]["name"]
    return name if isinstance(name, list) else [name]


def roots(file: Path, setting: str = "dataset.root") -> list[str]:
    """The folders of its datasets, as they are given to a command."""
    folders = [f"/data/{name}" for name in sources(file)]
    return ["--set", f"{setting}={folders[0] if len(folders) == 1 else json.dumps(folders)}"]


def assignments(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Each value of nested settings behind `--set`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from assignments(value, f"{prefix}{name}.")
        else:
            yield from ("--set", f"{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}")


def test_each_study_of_the_project_has_a_name() -> None:
    assert names() == NAMES
    assert {file.name for file in FILES} == {f"{name}.yaml" for name in NAMES}


@each_file
def test_a_study_is_of_the_datasets_in_its_name_at_two_hospitals(file: Path) -> None:
    study = load_study(file)
    assert set(sources(file)) <= set(get_args(Dataset))
    assert study.dataset.label.replace(" ", "") == file.stem
    assert study.partition.hospitals == 2
    assert study.dataset.root is None  # where the data lies is the user's own


@each_file
@pytest.mark.parametrize("prefix", ["", "study."], ids=["run", "compare"])
def test_a_named_study_is_the_one_of_the_same_settings(file: Path, prefix: str, asked: list[Study]) -> None:
    """Equal to the byte, so that all keys are."""
    command = "compare" if prefix else "run"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    invoke(command, "--study", file.stem, *roots(file, f"{prefix}dataset.root"))
    named = list(asked)
    asked.clear()
    invoke(command, *assignments(values, prefix), *roots(file, f"{prefix}dataset.root"))
    assert [study.model_dump_json() for study in named] == [study.model_dump_json() for study in asked]
    assert named == asked and named
    assert len(named) == (len(cells(load_comparison())) if prefix else 1)
    assert {study.dataset.label for study in named} == {" + ".join(sources(file))}


@each_file
def test_settings_are_changed_on_top(file: Path, asked: list[Study]) -> None:
    invoke("run", "--study", file.stem, *roots(file), "--set", "seed=7", "--set", "partition.hospitals=5")
    (study,) = asked
    changed = {"seed": 7, "partition": study.partition.model_copy(update={"hospitals": 2})}
    assert (study.seed, study.partition.hospitals) == (7, 5)
    assert study.model_copy(update=changed | {"seed": 0, "dataset": load_study(file).dataset}) == load_study(file)


@each_file
def test_the_first_comment_is_printed_before_the_study_starts(file: Path, asked: list[Study]) -> None:
    first, _, rest = file.read_text(encoding="utf-8").partition("\n\n")
    assert all(line.startswith("# ") for line in first.splitlines()), first
    found = invoke("run", "--study", file.stem, *roots(file))
    assert isinstance(found.exception, StartedError)
    assert found.stderr == "".join(f"{line[2:]}\n" for line in first.splitlines())
    assert found.stdout == ""  # which --json has for its document
    assert rest.startswith(f"# fed-rag run --study {file.stem} --set ")


def test_a_comparison_says_how_many_studies_that_is(asked: list[Study]) -> None:
    of_three = ("--set", "seeds=[0, 1, 2]", "--set", "splits=[none]", "--set", "configurations={fed+rag: {}}")
    found = invoke("compare", "--study", "slake", "--set", "study.dataset.root=/data/slake", *of_three)
    printed = (TOP / "data/studies/slake.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    assert found.stderr.splitlines()[0] == printed
    assert found.stderr.splitlines()[-1] == "The comparison consists of 3 such studies."


@pytest.mark.parametrize("arguments", [("--study", "slake", "--quiet"), ()], ids=["quiet", "no name"])
def test_otherwise_nothing_is_printed(arguments: Sequence[str], asked: list[Study]) -> None:
    for command, root in (("run", "dataset.root"), ("compare", "study.dataset.root")):
        found = invoke(command, *arguments, "--set", f"{root}=/data")
        assert isinstance(found.exception, StartedError)
        assert found.output == ""


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize("name", ["slak", "SLAKE", "", "../studies/slake", "slake.yaml"])
def test_an_unknown_name_is_refused_with_all_known_ones(command: str, name: str) -> None:
    sentence = f"Expected --study to be one of {', '.join(NAMES)}, found {name!r}: choose one."
    assert refused(command, "--study", name) == sentence


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_settings_file_beside_a_name_is_refused(command: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("{}\n", encoding="utf-8")
    assert refused(command, "--study", "slake", "--settings", str(file)).startswith(
        "Expected --study or --settings, found both: leave one out"
    )


@each_file
def test_a_study_without_its_data_names_what_is_missing(file: Path) -> None:
    for command, setting in (("run", "dataset.root"), ("compare", "study.dataset.root")):
        sentence = refused(command, "--study", file.stem)
        several = len(sources(file)) > 1
        assert sentence.startswith(
            f"Expected --set '{setting}=[DIR, DIR]' beside" if several else f"Expected --set {setting}=DIR beside"
        )
        assert f"found none for {' and '.join(sources(file))}: " in sentence


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("/data", "Setting dataset.root does not fit: expected a list of 2, in the order of dataset.name"),
        ("[/data/slake, null]", "found none for vqa-rad: name the folders of slake and vqa-rad, in this order."),
        ("[/absent/slake, /absent/rad]", "Expected dataset.root to be a folder, found /absent/slake"),
    ],
    ids=["one", "none of the second", "absent"],
)
def test_each_of_two_datasets_has_its_folder(root: str, said: str) -> None:
    assert said in refused("run", "--study", "slake+vqa-rad", "--set", f"dataset.root={root}")


def test_drawn_data_in_its_place_needs_no_folder(asked: list[Study]) -> None:
    assert isinstance(invoke("run", "--study", "vqa-rad", "--set", "dataset.name=phantom").exception, StartedError)


def test_without_a_name_the_hub_serves_as_ever(asked: list[Study]) -> None:
    assert isinstance(invoke("run", "--set", "dataset.name=path-vqa").exception, StartedError)


def test_the_file_of_a_base_study_is_read_as_one_of_a_study(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("federation.rounds: 2\nmodel: {name: 010}\n", encoding="utf-8")
    assert load_comparison(study=file).study == load_study(file)


@pytest.mark.parametrize("command", ["run", "compare"])
def test_help_names_them(command: str) -> None:
    assert f": {', '.join(NAMES)}." in " ".join(invoke(command, "--help").output.split())


@pytest.mark.parametrize(("begun", "names"), [("", NAMES), ("s", ["slake", "slake+vqa-rad"]), ("x", [])])
def test_a_shell_completes_names(begun: str, names: list[str]) -> None:
    words = {"COMP_WORDS": f"fed-rag run --study {begun}", "COMP_CWORD": "3", "_FED_RAG_COMPLETE": "complete_bash"}
    done = subprocess.run([COMMAND], env=shell() | words, capture_output=True, text=True)
    assert done.stdout.split() == names


def real_cases(file: Path) -> list[Case]:
    """What a study reads of the real data."""
    study = load_study(file)
    ask = Options(**study.dataset.model_dump(exclude={"name", "root"}), seed=study.seed)
    return ingest([(name, real(REAL[name])) for name in sources(file)], ask).cases


@each_file
def test_real_data_has_training_and_test_cases_that_share_images_in_vqa_rad_alone(file: Path) -> None:
    """Whose published test images are all training images."""
    study = load_study(file)
    cases = disjoint(real_cases(file), [], study.partition.disjoint, study.seed)
    images = {split: {case.image_id for case in cases if case.split == split} for split in ("train", "test")}
    assert len(images["train"]) > len(images["test"]) > 0
    shared = images["train"] & images["test"]
    assert {case.dataset for case in cases if case.image_id in shared} <= {"vqa-rad"}
    assert {case.dataset for case in cases if case.split == "test"} == set(sources(file))


def test_slake_is_tested_on_its_published_validation_split() -> None:
    rows = json.loads((real("slake") / "validate.json").read_text(encoding="utf-8"))
    published = {row["img_name"].split("/")[0] for row in rows if row["q_lang"] == "en"}
    cases = real_cases(TOP / "data/studies/slake.yaml")
    assert {case.image_id for case in cases if case.split == "test"} == published
