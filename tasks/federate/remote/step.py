"""What hospitals on other machines sent, as the same folders that they would have left in a simulation.

A folder that is there is not asked for again: so a coordinator that was killed goes on from the last finished round.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.errors import StudyError
from tasks.federate.step import SENT
from tasks.records.federation import CONFIG_FILE, CONTROL_FILE, HospitalRefs, read_counts, write_counts
from tasks.records.shared_documents import (
    AbstentionDocument,
    FailuresDocument,
    GainDocument,
    PrivacyDocument,
    ScoresDocument,
    SeenDocument,
    SharesDocument,
    ToldDocument,
    TrainedDocument,
    UsedDocument,
    ValidationDocument,
)
from tasks.records.shared_files import UPDATE
from tasks.score.image_sums import sums_schema
from tasks.settings import ContextSettings, EvaluationSettings, FederationSettings, LocalRule, LoraSettings, ModelChoice
from tasks.settings.training import PersonalSettings
from tasks.store import Ref
from tasks.store.leaving import Document, Files, Table
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    from tasks.federate.remote.parcel import Parcel

TOLD_SCORES: Files = {
    "scores/scores.json": Document(ScoresDocument),
    "scores/sums.parquet": Table(sums_schema()),
    "reliance/scores.json": Document(ScoresDocument),
    "failures/failures.json": Document(FailuresDocument),
    "shares/shares.json": Document(SharesDocument),
    "abstention/abstention.json": Document(AbstentionDocument),
    "seen/seen.json": Document(SeenDocument),
    "gain/gain.json": Document(GainDocument),
}
"""What hospitals may tell of their scores."""


@stage(
    "hospital",
    area="shared",
    title="{hospital} joined",
    leaves=("counts",),
    writes={"hospital.json": Document(ToldDocument)},
)
def note_hospital(folder: Folder, hospital: str, told: str) -> None:
    """Write down what a hospital told of itself when it joined, JSON, as `hospital.json`.

    Its `data` is a digest of the hospital's cases, features and library that nobody without the hospital's key can
    compare with anything. Folders that follow from these cases have it in their keys.
    """
    folder.write_json("hospital.json", {"hospital": hospital} | json.loads(told))


@stage("update", area="shared", title="train {hospital.name} round {round_number}", leaves=SENT, writes=UPDATE)
def hear_update(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    keeps: tuple[str, ...],
    round_number: int,
    seed: int,
) -> None:
    """Let a hospital train for one round from its adapter, and write the update that it sends, as `train_hospital`.

    The hospital `keeps` some of the tensors. With control variates it is told the rounds whose update counted, and
    makes its own one of these.
    """
    from tasks.federate.remote.files import SENT_FILES, take

    about: dict[str, Any] = {"round": round_number, "local": local.model_dump(mode="json")}
    if local.control:
        about["used"] = _rounds_used(hospital.control)
    take(folder, _ask("train", hospital, about).files, SENT_FILES | ({CONTROL_FILE} if local.control else set()))


@stage(
    "used",
    area="shared",
    title="note the rounds of {hospital}",
    leaves=(),
    writes={"used.json": Document(UsedDocument)},
)
def note_used(folder: Folder, hospital: str, before: Ref | None, update: Ref) -> None:
    """Note that a hospital's update counted in its round, after the rounds `before`: `used.json`."""
    rounds = [*_rounds_used(before), read_counts(update.folder).round]
    folder.write_json("used.json", {"hospital": hospital, "rounds": rounds})


@stage(
    "trained-elsewhere",
    area="shared",
    title="train {hospital.name} round {round_number}",
    leaves=(),
    writes={"trained.json": Document(TrainedDocument)},
)
def hear_trained(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    keeps: tuple[str, ...],
    round_number: int,
    seed: int,
) -> None:
    """Let a hospital train for one round from its adapter, and keep what it trained: `trained.json`.

    The file has a digest of the update that nobody without the hospital's key can compare with anything, and the public
    key by which the hospital signs in secure sums.
    """
    told = _ask("train", hospital, {"round": round_number, "local": local.model_dump(mode="json")}).about
    document = {name: str(told.get(name)) for name in ("update", "key")}
    if not all(re.fullmatch("[0-9a-f]{64}", each) for each in document.values()):
        raise StudyError(
            f"Expected a digest and a key in the answer of {hospital.name}, found something else: install the same "
            "version of fed-rag at the coordinator and at every hospital."
        )
    folder.write_json("trained.json", {"hospital": hospital.name, "round": round_number} | document)


@stage("secure-mean", area="shared", title="secure sum round {round_number}", leaves=SENT, writes=UPDATE)
def hear_sum(
    folder: Folder,
    hospitals: list[HospitalRefs],
    trained: list[Ref],
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    local: LocalRule,
    keeps: tuple[str, ...],
    round_number: int,
    seed: int,
) -> None:
    """Sum what hospitals trained, of which no one is seen, and write its mean as `sum_in_secret` does.

    All hospitals started from the adapter of the first.
    """
    from tasks.engine.adapter import load_state
    from tasks.federate.keeping import stays
    from tasks.federate.local import sent
    from tasks.federate.privacy.masked import layout_of, length_of, mean_of
    from tasks.federate.remote.sum_by_link import sum_by_link
    from tasks.federate.state import write_state

    start, about = hospitals[0].adapter, {"round": round_number, "local": local.model_dump(mode="json")}
    tensors = sent(local, load_state(start.folder)).items()
    layout = layout_of({"adapter": {name: tensor for name, tensor in tensors if not stays(name, keeps)}})
    told = [json.loads((ref.folder / "trained.json").read_text(encoding="utf-8")) for ref in trained]
    keys = {each["hospital"]: bytes.fromhex(each["key"]) for each in told}
    offers = {each.name: _request("offer", each, about) for each in hospitals}
    mean, counts = mean_of(
        sum_by_link(round_number, keys, length_of(layout), offers), layout, round_number, model.content
    )
    write_state(folder, mean)
    folder.write(CONFIG_FILE, (start.folder / CONFIG_FILE).read_bytes())
    write_counts(folder, "", counts)


@stage(
    "validation",
    area="shared",
    title="validate {hospital.name} round {round_number}",
    leaves=("losses", "counts"),
    writes={"validation.json": Document(ValidationDocument)},
)
def hear_validation(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    federation: FederationSettings,
    context: ContextSettings,
    round_number: int,
    seed: int,
    min_cell: int,
) -> None:
    """Let a hospital compute its adapter's loss on its held-out cases, as `validate_hospital` does."""
    from tasks.federate.remote.files import VALIDATION, take

    take(folder, _ask("validate", hospital, {"round": round_number}).files, VALIDATION)


@stage(
    "privacy-spent",
    area="shared",
    title="privacy spent by {hospital.name}",
    leaves=("counts",),
    writes={"privacy.json": Document(PrivacyDocument)},
)
def hear_privacy(folder: Folder, hospital: HospitalRefs, federation: FederationSettings, seed: int) -> None:
    """Let a hospital tell the epsilon that it has computed of its rounds, as `count_privacy` writes it."""
    from tasks.federate.remote.files import PRIVACY, take

    take(folder, _ask("privacy", hospital, {}).files, PRIVACY)


@stage("told-scores", area="shared", title="scores of {hospital.name}", leaves=("scores", "counts"), writes=TOLD_SCORES)
def hear_scores(
    folder: Folder,
    hospital: HospitalRefs,
    model: ModelChoice,
    lora: LoraSettings,
    context: ContextSettings,
    evaluation: EvaluationSettings,
    personal: PersonalSettings,
    rounds: str,
    starts: list[Ref],
    member: list[int],
    seed: int,
) -> None:
    """Let a hospital answer its test cases with its adapter, and write what it tells of its scores.

    `rounds` is what the hospital is told of the rounds, for its own page: a JSON list. `starts` are the adapters with
    which the rounds began in which it was a `member`, where a personal adapter is made of them. A hospital that agreed
    to no scores tells none; then there is no file.
    """
    from tasks.federate.remote.files import BY_GROUP, SCORES, starts_of, take
    from tasks.federate.remote.parcel import Parcel, ask

    request = _request("evaluate", hospital, {"rounds": json.loads(rounds), "member": member})
    begun = starts_of(dict(zip(member, starts, strict=False)))
    files = ask(hospital.name, Parcel("evaluate", request.about, {**request.files, **begun})).files
    take(folder, files, {SCORES} if files else (), BY_GROUP)


def _rounds_used(noted: Ref | None) -> list[int]:
    """The rounds that `note_used` has noted."""
    return list(json.loads((noted.folder / "used.json").read_text(encoding="utf-8"))["rounds"]) if noted else []


def _ask(kind: Any, hospital: HospitalRefs, about: Mapping[str, Any]) -> "Parcel":
    from tasks.federate.remote.parcel import ask

    return ask(hospital.name, _request(kind, hospital, about))


def _request(kind: Any, hospital: HospitalRefs, about: Mapping[str, Any]) -> "Parcel":
    """A request to work with a hospital's adapter, which is sent along."""
    from tasks.federate.remote.files import adapter_of
    from tasks.federate.remote.parcel import Parcel

    return Parcel(kind, about, adapter_of(hospital.adapter))
