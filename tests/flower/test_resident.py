"""A hospital's answers to a coordinator: what it refuses, what it says of its own errors, and whose settings decide."""

import errno
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import mapped, resident
from flows.cli import main as cli
from flows.cli.hospital import alone_in_folder, open_folder
from flows.cli.settings_file import load_hospital
from flows.evaluate import Evaluated
from flows.federation import about, of_hospitals
from flows.own_run import told_scores
from flows.own_study import own_study
from flows.prepare import Prepared
from flows.requested import keep_adapter
from flows.resident import Resident
from flows.runtimes.flower.runtime import answered
from flows.start import Start
from flows.sum_keys import fingerprints, make_sum_key, read_sum_key
from flows.told import told_by
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.federate.privacy.accounting import epsilon
from tasks.federate.privacy.budget import Budget, to_json
from tasks.federate.remote.files import SCORES, SENT_FILES
from tasks.federate.remote.parcel import Kind, Parcel
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, CONTROL_FILE, HospitalRefs
from tasks.settings import ModelSettings, Study
from tasks.settings.hospital import AgreementSettings, HospitalSettings, SecureSumSettings
from tasks.store import Ref, writing

SETTINGS = HospitalSettings.model_validate({"name": "north", "agreement": {"rounds": 5, "min_cell": 7}})
BASE = choose_model(ModelSettings()).content
FILES = {ADAPTER_FILE: b"0", CONFIG_FILE: json.dumps({"r": 16}).encode()}


def asked(kind: Kind, files: dict[str, bytes] = FILES, **about: Any) -> str:
    """The reason that a request is refused for."""
    study = about.pop("study", Study()).model_dump(mode="json")
    request = Parcel(kind, {"study": study, "base": BASE} | about, files)
    answer = Resident(SETTINGS).answer(request)
    assert answer.kind == "refused" and not answer.files
    return str(answer.about["reason"])


def test_what_is_wrong_with_a_request_is_told() -> None:
    assert "found refused" in asked("refused")
    assert "settings of a study" in str(Resident(SETTINGS).answer(Parcel("train", {"study": {"seed": -1}})).about)
    assert "its own base" in asked("meet", base="another")
    many = Study.model_validate({"federation": {"rounds": 6}})
    assert "federation.rounds of at most 5" in asked("meet", study=many)
    for number in (0, 5, True, "1"):
        assert "a round from 1 to 4" in asked("validate", round=number)
    assert "an adapter in the request" in asked("validate", files={}, round=1)
    other = FILES | {CONFIG_FILE: json.dumps({"r": 8}).encode()}
    assert "an adapter of rank 16 (lora.r), found rank 8" in asked("train", files=other, round=1, local={})


@pytest.mark.parametrize("error", [StudyError("Expected a date in /data/anna.csv, row 7."), ValueError("anna")])
def test_nothing_of_an_error_at_the_hospital_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(resident, "prepare_own", fail)
    with caplog.at_level(logging.ERROR, logger="fed_rag"):
        assert asked("meet") == "It failed to meet; its own log tells why."
    assert "anna" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_on_both_sides(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "No space", "/data/anna")

    monkeypatch.setattr(resident, "prepare_own", fail)
    with caplog.at_level(logging.ERROR, logger="fed_rag"):
        assert asked("meet") == "It failed to meet, since its disk is full."
    assert caplog.messages == ["failed to meet: its disk is full; free some space, and it is asked again"]
    assert not caplog.records[0].exc_info


def test_data_and_base_are_the_hospitals_and_it_withholds_more() -> None:
    theirs = Study.model_validate(
        {"dataset": {"images": 8}, "federation": {"rounds": 2}, "lora": {"r": 4}, "evaluation": {"min_cell": 9}}
    )
    study = own_study(SETTINGS, theirs)
    assert (study.dataset, study.model) == (SETTINGS.dataset, SETTINGS.model)
    assert (study.partition.hospitals, study.partition.disjoint) == (1, "near_duplicate")
    assert (study.federation, study.lora, study.seed) == (theirs.federation, theirs.lora, theirs.seed)
    assert study.evaluation.min_cell == 9
    assert own_study(SETTINGS).evaluation.min_cell == 7
    summed = Study.model_validate({"federation": {"secure_aggregation": True, "runtime": "flower"}})
    assert own_study(SETTINGS, summed).federation.secure_aggregation


def test_without_keys_for_secure_sums_none_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    summed = Study.model_validate({"federation": {"secure_aggregation": True, "runtime": "flower"}})
    for _ in range(2):
        assert "its own key and those of the other hospitals for a secure sum" in asked("meet", study=summed)
        make_sum_key(tmp_path / "sum.key", "north")  # which alone is not enough


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Ref]:
    """Updates that the hospital trains, in this order, without any training."""
    monkeypatch.chdir(tmp_path)
    updates = []
    for number in range(3):
        with writing("shared", "update", f"{number}") as folder:
            for name in SENT_FILES:
                folder.write(name, FILES[CONFIG_FILE] if name == CONFIG_FILE else name.encode())
        updates.append(folder.ref)
    north = HospitalRefs(name="north", **dict.fromkeys(("cases", "features", "library", "adapter"), updates[0]))
    prepared = Prepared([north], Start(updates[0], None), updates[0], [], None)
    coming = iter([*updates, updates[2]])
    monkeypatch.setattr(resident, "prepare_own", lambda *_: prepared)
    monkeypatch.setattr(resident, "within_part", lambda _, call, *__: call() if call.__name__ else None)
    monkeypatch.setattr(resident, "train_hospital", lambda **_: next(coming))
    return updates


def answered_by(this: Resident, kind: Kind, study: Study, number: int = 1) -> Parcel:
    about = {"study": study.model_dump(mode="json"), "base": BASE, "round": number, "local": {}}
    return this.answer(Parcel(kind, about, FILES))


def test_an_update_leaves_whole_or_not_at_all(trained: list[Ref], tmp_path: Path) -> None:
    """Where only a sum may leave, there are no files in the answer, and a digest that is not the update's own."""
    sent = answered_by(Resident(SETTINGS), "train", Study())
    assert sent.kind == "done" and sent.files.keys() == SENT_FILES
    make_sum_key(tmp_path / "sum.key", "north")
    (tmp_path / "others").mkdir()
    make_sum_key(tmp_path / "south.key", "south")
    (tmp_path / "south.key.pub").rename(tmp_path / "others/south.pub")
    summed = Study.model_validate({"federation": {"secure_aggregation": True, "runtime": "flower"}})
    kept = answered_by(Resident(SETTINGS), "train", summed)
    assert kept.kind == "done" and not kept.files and kept.about.keys() == {"update", "key"}
    own = read_sum_key(tmp_path / "sum.key").public_key().public_bytes_raw()
    assert kept.about["key"] == own.hex() and kept.about["update"] not in (trained[1].digest, trained[1].path)
    offered = answered_by(Resident(SETTINGS), "offer", summed)
    assert offered.kind == "done" and not offered.files and offered.about.keys() == {"nonce"}


def test_rounds_with_noise_are_counted_by_what_leaves(
    trained: list[Ref], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds are within the budget: the third adapter that a coordinator has trained stays, whatever its number."""
    noise = {"federation": {"rounds": 4, "privacy": {"unit": "example"}}, "retrieval": {"k": 0}}
    study = Study.model_validate(noise)
    budget = Budget("north", "example", 100, 0.1, 10, 1.0, 2.0, 1e-5, "rdp", rounds=2)
    with writing("shared", "privacy", "0") as folder:
        folder.write_json("privacy.json", to_json(budget))

    def protect(
        study: Study, hospitals: list[HospitalRefs], joined: int
    ) -> tuple[Study, list[HospitalRefs], list[Ref]]:
        return study, [each.model_copy(update={"budget": folder.ref}) for each in hospitals], [folder.ref]

    monkeypatch.setattr(resident, "protect", protect)
    monkeypatch.setattr(resident, "count_privacy", resident.count_privacy.fn)
    this = Resident(SETTINGS)
    assert [answered_by(this, "train", study, number).kind for number in (1, 1)] == ["done", "done"]
    refused = answered_by(Resident(SETTINGS), "train", study)
    assert "at most 2 updates of a study within its epsilon, found one more" in refused.about["reason"]
    assert not refused.files
    told = json.loads(answered_by(this, "privacy", study).files["privacy.json"])
    assert (told["rounds"], told["hospital"]) == (2, "north")
    assert told["epsilon"] == pytest.approx(epsilon(2.0, 0.1, 20, 1e-5, "rdp"))


def test_an_adapter_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = keep_adapter(FILES)
    assert keep_adapter(dict(reversed(FILES.items()))) == kept
    assert (kept.folder / ADAPTER_FILE).read_bytes() == b"0"
    (kept.folder / ADAPTER_FILE).write_bytes(b"1")
    assert keep_adapter(FILES) == kept
    assert (kept.folder / ADAPTER_FILE).read_bytes() == b"0"


def test_scores_by_group_stay_where_they_were_not_agreed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"hospital": "north", "withheld": {"groups": {"organ": ["spleen"]}, "by_kind": {}, "labels": False}}
    with writing("shared", "scores", "0") as folder:
        folder.write_json("scores.json", document)
        folder.write("sums.parquet", b"spleen")
    found = Evaluated({}, [folder.ref], [folder.ref], [], [], [], [])
    told = told_scores(found, [], by_group=False)
    assert told.keys() == {SCORES} and b"spleen" not in told[SCORES]
    assert json.loads(told[SCORES])["withheld"]["labels"] is False
    every = told_scores(found, [], by_group=True)
    assert every.keys() == {SCORES, "scores/sums.parquet", "reliance/scores.json"}


def test_the_settings_file_holds_every_setting(tmp_path: Path) -> None:
    folder = tmp_path / "north"
    words = ["hospital", "init", str(folder), "--name", "north", "--root", str(tmp_path), "--coordinator", "host:1"]
    assert CliRunner().invoke(cli.app, words).exit_code == 0
    settings = load_hospital(folder / "hospital.yaml")
    assert (settings.name, settings.dataset.name, settings.dataset.root) == ("north", "table", tmp_path)
    assert settings.coordinator.address == "host:1"
    assert fingerprints("north", SecureSumSettings(key=folder / "sum.key"))["north"].startswith("SHA256:")
    whole = (folder / "hospital.yaml").read_text(encoding="utf-8")
    told = [line.removeprefix("# ") for line in whole.splitlines() if not line.startswith("#  ")]
    uncommented = "\n".join(told)
    (tmp_path / "all.yaml").write_text(uncommented[uncommented.index("name:") :], encoding="utf-8")
    assert load_hospital(tmp_path / "all.yaml") == settings
    assert "Expected no settings yet" in str(CliRunner().invoke(cli.app, words).exception)


def test_a_folder_without_settings_and_a_second_process_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError, match=r"Expected hospital\.yaml in .*, found none"):
        open_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("hospital.yaml").write_text("name: Nord\n", encoding="utf-8")
    with pytest.raises(StudyError, match="found 'Nord'"):
        open_folder(Path())
    Path("hospital.yaml").write_text("name: north\nagreement: {round: 3}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"did you mean agreement\.rounds"):
        open_folder(Path())
    with alone_in_folder("north"), pytest.raises(StudyError, match="no other process of north"):
        alone_in_folder("north")


def test_what_would_leave_is_told_as_it_was_agreed_to() -> None:
    def told(**agreement: Any) -> set[tuple[str, str]]:
        return {(each.file, each.field) for each in told_by(AgreementSettings(**agreement), 9, 9, 1000, 1)}

    assert {(ADAPTER_FILE, "tensors"), ("update.json", "samples")} <= told()
    in_secret = told(secure_aggregation=True)
    assert {("message", "words"), ("trained.json", "update")} <= in_secret
    assert not [file for file, _ in in_secret if file in SENT_FILES]
    assert told(strategies=["scaffold"]) - told() == {(CONTROL_FILE, "tensors")}
    compared = {("message", name) for name in ("public, signature", "digests", "images")}
    assert told(shared_images=True) - told() == compared


def test_hospitals_are_told_no_others_name_and_no_file() -> None:
    study = Study.model_validate(
        {
            "dataset": {"name": "table", "root": "/coordinator"},
            "lora": {"ranks": {"south": 4}},
            "federation": {"joins": {"south": 2}, "rounds": 3},
        }
    )
    told = about(study)
    assert "south" not in json.dumps(told) and "/coordinator" not in json.dumps(told)
    assert Study.model_validate(told["study"]).federation.rounds == 3


class Future:
    """A finished task."""

    def __init__(self, result: Any) -> None:
        self._result, self.state = result, self

    def is_completed(self) -> bool:
        return not isinstance(self._result, Exception)

    def result(self, raise_on_failure: bool = True) -> Any:
        return self._result


def test_who_does_not_answer_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mapped, "wait", lambda _: None)
    futures: Any = [Future("losses"), Future(StudyError("late")), Future(ValueError("of Anna"))]
    with caplog.at_level(logging.WARNING, logger="fed_rag"):
        assert answered(futures, ["north", "south", "west"]) == ["losses"]
    assert caplog.messages == ["south did not answer: late", "west did not answer: ValueError"]


def test_a_study_that_does_not_travel_is_told_so() -> None:
    assert of_hospitals(Study(), 3).partition.hospitals == 3
    with pytest.raises(
        StudyError, match=r"These settings do not fit: expected another federation\.strategy [^\n]*none\.$"
    ):
        of_hospitals(Study.model_validate({"federation": {"strategy": "none"}}), 3)
