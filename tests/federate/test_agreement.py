"""What a hospital agrees to: each thing that is asked beyond it is refused by its name, and all else is done."""

from typing import Any

import pytest

from tasks.errors import StudyError
from tasks.federate.remote.agreement import NotAgreedError, refuse_more
from tasks.federate.remote.files import BY_GROUP, SCORES, SENT_FILES, adapter_of, take
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE
from tasks.settings import Study
from tasks.settings.hospital import AgreementSettings
from tasks.store import writing

PRIVATE = {"privacy": {"unit": "example", "epsilon": 4}}
NO_CONTEXT = {"retrieval": {"k": 0}}


def study(federation: dict[str, Any], **more: Any) -> Study:
    return Study.model_validate({"federation": federation, **more})


AGREED: list[tuple[dict[str, Any], Study]] = [
    ({}, study({})),
    ({"rounds": 4}, study({"rounds": 4})),
    ({"base": "b"}, study({})),
    ({"strategies": ["median", "fedavg"]}, study({"strategy": "median"})),
    ({"privacy": "example", "epsilon": 4}, study(PRIVATE, **NO_CONTEXT)),
    ({"privacy": "example"}, study({"privacy": {"unit": "patient"}}, **NO_CONTEXT)),
    ({"secure_aggregation": True}, study({"secure_aggregation": True})),
    ({"shared_images": True}, study({"compare_images": True})),
    ({"shared_images": True}, study({})),
]
REFUSED: list[tuple[dict[str, Any], Study, str]] = [
    ({"rounds": 3}, study({"rounds": 4}), "federation.rounds of at most 3, as it agreed to, found 4"),
    ({}, study({"local_epochs": 6}), "federation.local_epochs of at most 5, as it agreed to, found 6"),
    ({"strategies": ["median", "krum"]}, study({}), "federation.strategy of median or krum, .*, found fedavg"),
    ({"base": "another"}, study({}), "the base another that it agreed to, found b"),
    ({"privacy": "example"}, study({}), "federation.privacy.unit of at least example, .*, found none"),
    ({"privacy": "patient"}, study(PRIVATE, **NO_CONTEXT), "unit of at least patient, .*, found example"),
    ({"privacy": "example", "epsilon": 3}, study(PRIVATE, **NO_CONTEXT), "epsilon of at most 3.*, found 4"),
    (
        {"privacy": "example", "strategies": ["dpfedavg"]},
        study({"privacy": {"unit": "hospital"}, "strategy": "dpfedavg"}),
        "unit of at least example, .*, found none",
    ),
    (
        {"epsilon": 3, "strategies": ["dpfedavg"]},
        study({"privacy": {"unit": "hospital", "epsilon": 4}, "strategy": "dpfedavg"}),
        "epsilon of at most 3.*, found 4",
    ),
    ({}, study({"compare_images": True}), "federation.compare_images false, as it agreed to, found true"),
    ({"secure_aggregation": True}, study({}), "federation.secure_aggregation true, as it agreed to, found false"),
]


@pytest.mark.parametrize(("agreement", "asked"), AGREED)
def test_what_was_agreed_to_is_done(agreement: dict[str, Any], asked: Study) -> None:
    refuse_more(AgreementSettings.model_validate(agreement), asked, "b", "b")


@pytest.mark.parametrize(("agreement", "asked", "said"), REFUSED)
def test_what_was_not_agreed_to_is_refused_by_its_name(agreement: dict[str, Any], asked: Study, said: str) -> None:
    with pytest.raises(NotAgreedError, match=said):
        refuse_more(AgreementSettings.model_validate(agreement), asked, "b", "b")


def test_another_base_is_refused() -> None:
    with pytest.raises(NotAgreedError, match="its own base own, found theirs"):
        refuse_more(AgreementSettings(), Study(), "theirs", "own")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"federation": {"strategy": "none"}}, "federation.strategy"),
        ({"retrieval": {"fusion": "gated"}}, "retrieval.fusion"),
        ({"engine": {"executor": "batched"}}, "engine.executor"),
    ],
)
def test_what_does_not_travel_yet_is_no_valid_study(values: dict[str, Any], said: str) -> None:
    Study.model_validate(values)
    values = values | {"federation": {**values.get("federation", {}), "runtime": "flower"}}
    with pytest.raises(ValueError, match=f"expected another {said} with federation.runtime flower"):
        Study.model_validate(values)


def test_control_variates_are_not_summed_in_secret_elsewhere() -> None:
    values = {"strategy": "scaffold", "secure_aggregation": True}
    study(values)
    study({"strategy": "scaffold", "runtime": "flower"})
    with pytest.raises(ValueError, match=r"another federation\.strategy than scaffold"):
        study(values | {"runtime": "flower"})


def test_where_hospitals_are_is_in_no_key_of_their_training() -> None:
    assert study({"runtime": "flower"}).federation.local == Study().federation.local


def test_hospitals_get_the_adapter_and_nothing_of_the_others(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with writing("shared", "adapter", "0") as folder:
        for name in (ADAPTER_FILE, CONFIG_FILE, "round.json", "adapter-momentum.safetensors"):
            folder.write(name, name.encode())
    assert adapter_of(folder.ref) == {name: name.encode() for name in (ADAPTER_FILE, CONFIG_FILE)}


def test_only_known_files_of_an_answer_are_taken(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = dict.fromkeys(SENT_FILES, b"1")
    for files in (answer | {"../../report.html": b"1"}, {CONFIG_FILE: b"1"}, {}):
        with pytest.raises(StudyError, match="found others"), writing("shared", "update", "0") as folder:
            take(folder, files, SENT_FILES)
        assert not (tmp_path / "artifacts/shared/update/0").exists()
    with writing("shared", "update", "0") as folder:
        take(folder, answer, SENT_FILES)
    assert set(folder.ref.manifest()["files"]) == SENT_FILES
    with writing("shared", "told-scores", "0") as folder:
        take(folder, {SCORES: b"1", "seen/seen.json": b"1"}, {SCORES}, BY_GROUP)
    assert set(folder.ref.manifest()["files"]) == {SCORES, "seen/seen.json"}
