"""What hospitals elsewhere sent, as stages: the same files as they would have left here, asked for in the right way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from tasks.errors import StudyError
from tasks.federate.remote.files import SCORES, start_in
from tasks.federate.remote.parcel import Parcel, linked
from tasks.federate.remote.step import hear_scores, hear_update, hear_validation, note_hospital, note_used
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, CONTROL_FILE, HospitalRefs
from tasks.settings import (
    ContextSettings,
    EvaluationSettings,
    FederationSettings,
    LocalRule,
    LoraSettings,
    ModelChoice,
)
from tasks.settings.training import PersonalSettings
from tasks.store import Ref, writing

MODEL = ModelChoice(name="model", device="cpu", content="0")
TRAINING: dict[str, Any] = {
    "model": MODEL,
    "lora": LoraSettings(),
    "federation": FederationSettings().local,
    "context": ContextSettings(),
    "seed": 0,
}
ORDER = TRAINING | {"keeps": ()}
COUNTS = {"hospital": "north", "round": 3, "samples": 4, "loss": 0.5, "steps": 2, "base": "0"}
UPDATE = {
    ADAPTER_FILE: save({"base_model.model.q_proj.lora_A.weight": np.ones((2, 2), np.float32)}),
    CONFIG_FILE: b'{"r": 2}',
    "update.json": json.dumps(COUNTS).encode(),
}
VALIDATION = {"validation.json": b'{"hospital": "north", "round": 2, "loss": 0.5, "tokens": 9}'}
NOTHING: dict[str, Any] = {"questions": [], "labels": False, "groups": {}, "by_kind": {}}
SCORED = {SCORES: json.dumps({"hospital": "north", "tallies": {}, "withheld": NOTHING}).encode()}


class Post:
    """A link that writes down what it is asked, and answers with the same files."""

    def __init__(self, files: dict[str, bytes], kind: Any = "done") -> None:
        self.asked: list[tuple[str, Parcel]] = []
        self._answer = Parcel(kind, {"reason": "no"}, files)

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        self.asked.append((hospital, request))
        return self._answer

    def close(self) -> None:
        """Nobody waits."""


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HospitalRefs:
    """North, as the coordinator knows it, with an adapter after a round."""
    monkeypatch.chdir(tmp_path)
    with writing("shared", "adapter", "0") as folder:
        for name in (ADAPTER_FILE, CONFIG_FILE, "round.json"):
            folder.write(name, name.encode())
    told = note_hospital.fn(hospital="north", told='{"data": "d"}')
    assert json.loads((told.folder / "hospital.json").read_text()) == {"hospital": "north", "data": "d"}
    return HospitalRefs(name="north", cases=told, features=told, library=told, adapter=folder.ref)


def files(ref: Ref) -> dict[str, bytes]:
    return {name: (ref.folder / name).read_bytes() for name in ref.manifest()["files"]}


def test_an_update_arrives_as_if_it_had_been_trained_here(hospital: HospitalRefs) -> None:
    post = Post(UPDATE)
    with linked(post):
        heard = hear_update.fn(hospital=hospital, local=LocalRule(proximal_mu=0.5), round_number=3, **ORDER)
    assert (heard.path.split("/")[:2], files(heard)) == (["shared", "update"], UPDATE)
    ((name, request),) = post.asked
    assert (name, request.kind) == ("north", "train")
    assert request.about["round"] == 3 and request.about["local"]["proximal_mu"] == 0.5
    assert request.files == {each: each.encode() for each in (ADAPTER_FILE, CONFIG_FILE)}


def test_a_hospital_is_told_which_of_its_rounds_counted(hospital: HospitalRefs) -> None:
    """Of these it makes its control variate, which stays there."""
    tensors = {**UPDATE, CONTROL_FILE: UPDATE[ADAPTER_FILE]}
    post, local, noted = Post(tensors), LocalRule(control=True), None
    for number in (3, 5):
        with linked(post):
            heard = hear_update.fn(
                hospital=hospital.model_copy(update={"control": noted}),
                local=local,
                round_number=number,
                **ORDER,
            )
        assert files(heard) == tensors
        noted = note_used.fn(hospital="north", before=noted, update=heard)
    assert [request.about["used"] for _, request in post.asked] == [[], [3]]
    assert json.loads((noted.folder / "used.json").read_text())["rounds"] == [3, 3]  # as the updates say
    with linked(post), pytest.raises(StudyError, match="found others"):  # none was asked for
        hear_update.fn(hospital=hospital, local=LocalRule(), round_number=3, **ORDER)


def test_losses_and_scores_arrive(hospital: HospitalRefs) -> None:
    post = Post(VALIDATION)
    with linked(post):
        heard = hear_validation.fn(hospital=hospital, round_number=2, min_cell=5, **TRAINING)
    assert files(heard) == VALIDATION
    assert (post.asked[0][1].kind, post.asked[0][1].about) == ("validate", {"round": 2})
    scoring = {name: TRAINING[name] for name in ("model", "lora", "context", "seed")}
    scoring |= {
        "evaluation": EvaluationSettings(),
        "rounds": '[{"round": 1}]',
        "member": [2, 5],
        "personal": PersonalSettings(),
    }
    for told in (SCORED, {}):
        post = Post(told)
        with linked(post):
            heard = hear_scores.fn(hospital=hospital, starts=[hospital.adapter], **scoring)
        assert files(heard) == told
        request = post.asked[0][1]
        assert (request.kind, request.about) == ("evaluate", {"rounds": [{"round": 1}], "member": [2, 5]})
        assert start_in(request.files, 2) == {name: request.files[name] for name in (ADAPTER_FILE, CONFIG_FILE)}
        assert start_in(request.files, 5) == {}


@pytest.mark.parametrize(
    ("post", "said"),
    [
        (Post({}, "refused"), "north refused: no"),
        (Post(VALIDATION), "found others"),
        (Post(UPDATE | {"cases.parquet": b"all of them"}), "found others"),
        (Post(UPDATE | {"update.json": json.dumps(COUNTS | {"note": "of Anna"}).encode()}), "UpdateDocument has not"),
        (Post(UPDATE | {ADAPTER_FILE: b"no tensors"}), "no safetensors file"),
    ],
)
def test_what_is_refused_or_is_no_update_leaves_nothing(hospital: HospitalRefs, post: Post, said: str) -> None:
    with linked(post), pytest.raises(StudyError, match=said):
        hear_update.fn(hospital=hospital, local=LocalRule(), round_number=1, **ORDER)
    assert not list(Path("artifacts/shared/update").iterdir())
