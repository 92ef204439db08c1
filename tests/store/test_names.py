"""Nothing that comes from settings, a run, a message or a request leads out of the folder that it is put in."""

import json
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.resident import Resident
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.federate.remote.parcel import Parcel
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE
from tasks.settings import ModelSettings, Study
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import Comparison
from tasks.settings.hospital import HospitalSettings
from tasks.store import Ref, revising, writing
from tasks.store.manifest import MANIFEST
from tasks.store.names import inside
from tasks.store.runs import open_run

OUT = ("../secret", "a/../../secret", "/etc/passwd", "..", ".", "", "a//b", "a/./b", "..\\secret", "C:/secret", "a\0b")


@pytest.mark.parametrize("name", OUT)
def test_a_name_that_may_lead_out_is_refused(name: str) -> None:
    with pytest.raises(StudyError, match="stays in its folder"):
        inside(name)


@given(st.text(st.sampled_from("ab./\\:-"), max_size=12))
def test_whatever_is_taken_stays_below_on_every_system(name: str) -> None:
    """Against the libraries' own idea of paths."""
    try:
        taken = inside(name)
    except StudyError:
        return
    assert os.path.normpath(f"/top/{taken}").startswith("/top/")
    assert not PurePosixPath(taken).is_absolute() and not PureWindowsPath(taken).drive
    assert ".." not in PureWindowsPath(taken).parts


def test_ordinary_names_are_taken_as_they_are() -> None:
    for name in ("a", "a/b.json", ".hidden", "a..b", "scores/scores.json", "Zürich/größe"):
        assert inside(name) == name


@pytest.mark.parametrize("name", ["../../planted", "/tmp/planted-by-a-test"])
def test_a_stage_writes_nothing_outside_its_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with pytest.raises(StudyError, match="stays in its folder"), writing("shared", "update", "0") as folder:
        folder.write(name, b"planted")
    for area, key in ((name, "0"), ("shared", name)):
        with pytest.raises(StudyError, match="stays in its folder"), writing(area, "update", key):
            pass
    assert not list(tmp_path.rglob("*planted*")) and not Path("/tmp/planted-by-a-test").exists()


def test_a_reference_a_run_and_a_manifest_name_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="stays in its folder"):
        Ref(path="../elsewhere", digest="0")
    for adapter, cases in (("../elsewhere", "hospitals/a/cases/0"), ("shared/adapter/0", "/etc")):
        with writing("", "runs", "run") as folder:
            folder.write_json("settings.json", Study().model_dump(mode="json"))
            places = {"a": {"cases": cases, "rounds": ["shared/adapter/0"]}}
            folder.write_json("references.json", {"adapter": adapter, "hospitals": places})
        with pytest.raises(StudyError, match="stays in its folder"):
            open_run(folder.ref.folder)
    with writing("shared", "update", "0") as folder:
        folder.write("kept", b"1")
    manifest = json.loads((folder.ref.folder / MANIFEST).read_text())
    manifest["files"]["../../../planted"] = manifest["files"]["kept"]
    (folder.ref.folder / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "planted").write_bytes(b"1")
    with pytest.raises(StudyError, match="stays in its folder"), revising("shared/update/0"):
        pass


def test_a_coordinator_plants_no_file_and_opens_none_of_the_hospitals_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = HospitalSettings.model_validate({"name": "north"})
    base = choose_model(ModelSettings()).content
    files = {ADAPTER_FILE: b"0", CONFIG_FILE: json.dumps({"r": 16}).encode()}

    def refused(study: Study = Study(), **more: bytes) -> str:
        about = {"study": study.model_dump(mode="json"), "base": base, "round": 1, "local": {}}
        answer = Resident(settings).answer(Parcel("train", about, files | more))
        assert answer.kind == "refused"
        return str(answer.about["reason"])

    for name in ("../../../planted", "manifest.json", "more.safetensors"):
        assert "only an adapter's files" in refused(**{name: b"planted"})
    clip = {"encoder": "clip", "encoder_model": "/home/north/private"}
    assert "below the hospital's" in refused(Study.model_validate({"retrieval": clip}))
    assert not list(tmp_path.rglob("planted"))


@pytest.mark.parametrize("model", [AttackTable, Comparison])
@pytest.mark.parametrize("name", OUT)
def test_the_names_of_results_in_settings_are_single_names(
    model: type[AttackTable] | type[Comparison], name: str
) -> None:
    with pytest.raises(ValueError, match="name"):
        model.model_validate({"name": name})


@pytest.mark.parametrize("name", OUT)
def test_a_hospitals_name_is_a_single_name(name: str) -> None:
    from flows.runtimes.flower.keys import refuse_name

    with pytest.raises(StudyError, match="hospital's name"):
        refuse_name(name)
