"""A finished run is read as it was left or not at all: folders gone or changed, another base, patients who withdrew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, Server, fed_rag, run
from test_forget import HOSPITAL, one, retrieved_patient

from flows import cells
from flows.cli.settings_file import load_study
from flows.forget import forget
from flows.report import write_card, write_pages
from flows.serve.answerer import answer
from flows.serve.explainer import Wanted, explain_case
from tasks.engine import shared
from tasks.errors import StudyError
from tasks.records import Case, read_images, read_table
from tasks.settings.comparison import Cell
from tasks.store import MANIFEST, discard

SETTINGS = (
    "dataset.images=8",
    "federation.rounds=1",
    "partition.hospitals=2",
    "evaluation.max_new_tokens=2",
    "evaluation.coverage=0.9",
    "evaluation.reliance=4",
    "evaluation.examined=2",
    "evaluation.saliency=1",
)
RUN = Path("artifacts/latest")


@pytest.fixture(scope="module")
def finished(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study with its base beside it; tests copy both."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiny_folder, folder / "base")
    fed_rag(folder, "run", *arguments(), server=server)
    return folder


def arguments(*more: str) -> list[str]:
    return [word for each in ("model.name=base", *SETTINGS, *more) for word in ("--set", each)]


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts of a copy, in which the test runs."""
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts", symlinks=True)
    shutil.copytree(finished / "base", tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    shared._engine.clear()
    shared._base.clear()
    return tmp_path / "artifacts"


def ask() -> None:
    cases = one(Path("artifacts/hospitals") / HOSPITAL, "cases")
    Path("asked.png").write_bytes(next(iter(read_images(cases / "images.parquet"))).data)
    answer(RUN, HOSPITAL, Path("asked.png"), "Is there a mass?")


def explain() -> None:
    case = read_table(one(Path("artifacts/hospitals") / HOSPITAL, "cases") / "cases.parquet", Case)[0]
    explain_case(RUN, HOSPITAL, case.id, Wanted(methods=("rollout",)))


def report() -> None:
    write_pages(RUN)


def card() -> None:
    write_card(RUN)


def adapter_of(artifacts: Path) -> Path:
    return artifacts / json.loads((artifacts / "latest/references.json").read_text())["adapter"]


def folder_of(stage: str) -> Callable[[Path], Path]:
    """Where the hospital's folder of a stage is."""
    return lambda artifacts: (
        artifacts / json.loads((artifacts / "latest/references.json").read_text())["hospitals"][HOSPITAL][stage]
    )


def predictions(artifacts: Path) -> Path:
    references = json.loads((artifacts / "latest/references.json").read_text())
    return artifacts / references["hospitals"][HOSPITAL]["predictions"][0]


READS: list[tuple[Callable[[], None], Callable[[Path], Path]]] = [
    (ask, folder_of("features")),
    (ask, folder_of("library")),
    (ask, folder_of("calibration")),
    (ask, adapter_of),
    (explain, folder_of("features")),
    (explain, folder_of("library")),
    (explain, adapter_of),
    (report, predictions),
    (report, folder_of("saliency")),
    (report, folder_of("failures")),
    (report, folder_of("cases")),
    (report, lambda artifacts: (artifacts / "latest").resolve()),
    (card, lambda artifacts: (artifacts / "latest").resolve()),
]


def change_a_file(folder: Path) -> None:
    """The last byte of every file, so that it is read all the same."""
    for path in folder.iterdir():
        if path.is_file() and path.name in json.loads((folder / MANIFEST).read_text())["files"]:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)


@pytest.mark.slow
def test_what_a_command_reads_is_as_the_run_left_it(study: Path) -> None:
    for command in (report, card, ask, explain):
        command()
    for command, place in READS:
        folder = place(study)
        shutil.copytree(folder, "kept", symlinks=True)
        for damage in (discard, change_a_file):
            damage(folder)
            with pytest.raises(StudyError) as error:
                command()
            assert "fed-rag run" in str(error.value), (command, place)
            assert "\n" not in str(error.value)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree("kept", folder, symlinks=True)
        shutil.rmtree("kept")
    for command in (report, card):
        command()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json"])
def test_another_base_at_the_same_path_answers_for_no_earlier_run(study: Path, name: str) -> None:
    ask()
    with (study.parent / "base" / name).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    for command in (ask, explain):
        with pytest.raises(
            StudyError, match=r"^Expected the base base that .* was trained on \(content .*\), found an"
        ):
            command()


@pytest.mark.slow
def test_another_base_at_the_same_path_is_trained_anew(server: Server, study: Path) -> None:
    template = study.parent / "base/chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "{# changed #}\n", encoding="utf-8")
    before = (study / "latest").resolve()
    done = run(server, study.parent, [str(COMMAND), "run", *arguments()])
    assert done.returncode == 0, done.stderr
    states = server.task_states()
    cached = {name for name, state in states.items() if state == "Cached"}
    loads = ("vision", "features", "initial", "train", "validate", "fed+rag", "base ", "calibration", "reliance")
    assert not [name for name in cached if name.startswith((*loads, "failures", "saliency"))]
    assert {"ingest phantom", "audit", "partition"} <= cached
    contents = [
        json.loads((each / "results.json").read_text())["model"]["content"] for each in (before, study / "latest")
    ]
    assert contents[0] != contents[1]


@pytest.fixture
def ran(study: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A copy of the finished run for each study that a comparison runs, in place of a run."""
    made: list[Path] = []

    def fake(_: object) -> str:
        made.append(Path(shutil.copytree((study / "latest").resolve(), study / "runs" / f"copy-{len(made)}")))
        return str(made[-1])

    monkeypatch.setattr(cells, "fed_rag", fake)
    return made


@pytest.mark.slow
def test_a_cell_is_found_only_whole_and_with_the_same_withdrawals_and_base(study: Path, ran: list[Path]) -> None:
    settings = tuple(arguments()[1::2])
    cell = Cell("configurations", "fed+rag", "none", 0, load_study(None, settings))
    assert cells.run_cell(cell) == (study / "runs/copy-0", False)
    assert cells.run_cell(cell) == (Path("artifacts/runs/copy-0"), True)
    expected = 1
    for place in (predictions, folder_of("library"), folder_of("reliance"), folder_of("scores"), adapter_of):
        folder = place(study)
        shutil.copytree(folder, "kept")
        discard(folder)
        assert cells.run_cell(cell)[1] is False
        expected += 1
        shutil.copytree("kept", folder)
        shutil.rmtree("kept")
        assert cells.run_cell(cell)[1]
        assert len(ran) == expected
    image, _ = retrieved_patient(study / "hospitals" / HOSPITAL)
    forget(HOSPITAL, image)
    assert cells.run_cell(cell)[1] is False
    assert cells.run_cell(cell)[1]
    with (study.parent / "base/config.json").open("a") as file:
        file.write("\n")
    assert cells.run_cell(cell)[1] is False


@pytest.mark.slow
def test_a_reference_to_a_folder_that_is_gone_is_one_sentence(study: Path) -> None:
    discard(predictions(study))
    with pytest.raises(StudyError, match=r"found some gone: run `fed-rag run` again"):
        cells.references(RUN, "predictions")
