"""The settings file that `fed-rag init` writes: a study's defaults, each of which can be switched on."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.cli.settings_file import describe, load_study
from tasks.errors import StudyError
from tasks.settings import Study


def test_the_file_is_a_study_of_the_dataset_with_all_defaults(tmp_path: Path) -> None:
    file = tmp_path / "my study.yaml"
    root = tmp_path / "export #2"
    root.mkdir()
    done = CliRunner().invoke(cli.app, ["init", str(file), "--dataset", "table", "--root", str(root)])
    assert done.exit_code == 0, done.exception
    assert f"--settings '{file}'" in " ".join(done.output.split())
    study = load_study(file)
    assert (study.dataset.name, study.dataset.root) == ("table", root)
    plain = study.model_copy(update={"dataset": Study().dataset})
    assert plain == Study()


def test_each_default_can_be_switched_on(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    assert CliRunner().invoke(cli.app, ["init", str(file), "--dataset", "phantom"]).exit_code == 0
    text = file.read_text(encoding="utf-8")
    names = [name for name, *_ in describe()]
    for name in names:
        assert len(re.findall(rf"^(?:# )?{re.escape(name)}: ", text, flags=re.MULTILINE)) == 1
    switched = re.sub(r"^# (?=[a-z0-9_.]+: )", "", text, flags=re.MULTILINE)
    assert switched.count("\n# ") == text.count("\n# ") - len(names) + 1  # dataset.name stood there already
    (tmp_path / "all.yaml").write_text(switched, encoding="utf-8")
    assert load_study(tmp_path / "all.yaml") == Study()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "tabel"], "tabel"),
        (["--dataset", "table"], "Expected --root beside --dataset table, found none: set it to the folder"),
        (["--dataset", "table", "--root", "/nowhere"], "Expected --root to be a folder, found /nowhere, which"),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_written(words: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["init", str(tmp_path / "study.yaml"), *words])
    assert isinstance(done.exception, StudyError)
    assert message in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("seed: 3\n")
    done = CliRunner().invoke(cli.app, ["init", str(file), "--dataset", "phantom"])
    assert isinstance(done.exception, StudyError) and "found" in str(done.exception)
    assert file.read_text() == "seed: 3\n"
