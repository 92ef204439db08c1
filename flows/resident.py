"""A hospital on a machine of its own: it prepares its cases, and does what a coordinator asks that it agreed to."""

import errno
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flows.compared_images import ComparedImages
from flows.coordinator import Federated, training_settings
from flows.own_run import evaluate_own, told_scores
from flows.own_study import own_study, prepare_own
from flows.parts import within_part
from flows.personal import Personalised, personalise
from flows.prepare import Prepared
from flows.privacy import protect
from flows.requested import asked_study, in_same_place, keep_adapter, kept_parts, sent_adapter, study_digest
from flows.shared_artifacts import refuse_shared
from flows.sum_keys import own_keys
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.federate.privacy.budget import read_budget
from tasks.federate.privacy.secret import keyed_digest
from tasks.federate.privacy.step import count_privacy, plan_server_privacy
from tasks.federate.remote.agreement import NotAgreedError, most_epsilon, refuse_more
from tasks.federate.remote.files import ADAPTER, PRIVACY, SENT_FILES, VALIDATION, start_in
from tasks.federate.remote.parcel import Parcel
from tasks.federate.remote.release_record import NAME as SPENT
from tasks.federate.remote.release_record import ReleaseRecord
from tasks.federate.remote.sum_record import NAME as SUMS
from tasks.federate.remote.sum_record import SumRecord
from tasks.federate.remote.summing import Summing
from tasks.federate.remote.trained_record import NAME as TRAINED
from tasks.federate.remote.trained_record import TrainedRecord
from tasks.federate.step import (
    join_adapter,
    keep_control,
    send_update,
    train_at_home,
    train_hospital,
    validate_hospital,
)
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, CONTROL_FILE, HospitalRefs
from tasks.settings import LocalRule, ModelChoice, Study
from tasks.settings.hospital import HospitalSettings
from tasks.store import ROOT, Ref, find
from tasks.store.checkpoints import checkpoints_every

logger = logging.getLogger("fed_rag")


class Resident:
    """Answers a coordinator's requests, one after the other, with one base in memory."""

    def __init__(self, settings: HospitalSettings) -> None:
        refuse_shared("at a hospital")
        self._settings = settings
        self._prepared: dict[Study, Prepared] = {}
        self._sums: Summing | None = None
        self._compared = ComparedImages(settings)
        place = ROOT / "hospitals" / settings.name
        self._trained, self._released = TrainedRecord(place / TRAINED), ReleaseRecord(place / SPENT)

    def answer(self, request: Parcel) -> Parcel:
        """Do what is asked, or refuse it with a sentence.

        Only sentences about settings leave the hospital; any other error is told here, and there that one happened.
        """
        doing: Mapping[str, Callable[[Study, Parcel], Parcel]] = {
            "meet": self._meet,
            "images": self._images,
            "train": self._train,
            "offer": self._offer,
            "sum": lambda _, request: self._own_sums().answer(request),
            "validate": self._validate,
            "privacy": self._privacy,
            "evaluate": self._evaluate,
        }
        try:
            if request.kind not in doing:
                raise NotAgreedError(f"Expected a request to {', '.join(doing)}, found {request.kind}.")
            with checkpoints_every(self._settings.checkpoint_minutes):
                return doing[request.kind](self._agreed(request), request)
        except NotAgreedError as error:
            logger.warning("refused: %s", error)
            return Parcel("refused", {"reason": str(error)})
        except StudyError as error:
            logger.error("failed to %s: %s", request.kind, error)
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                logger.error("failed to %s: its disk is full; free some space, and it is asked again", request.kind)
                return Parcel("refused", {"reason": f"It failed to {request.kind}, since its disk is full."})
            logger.exception("failed to %s", request.kind)
        return Parcel("refused", {"reason": f"It failed to {request.kind}; its own log tells why."})

    def _agreed(self, request: Parcel) -> Study:
        """The study that a request belongs to, as this hospital runs it."""
        try:
            asked, base = Study.model_validate(request.about["study"]), str(request.about["base"])
        except (KeyError, ValueError):
            raise NotAgreedError(
                "Expected the settings of a study, found others: use one version of fed-rag."
            ) from None
        refuse_more(self._settings.agreement, asked, base, choose_model(self._settings.model).content)
        return own_study(self._settings, asked)

    def _meet(self, study: Study, request: Parcel) -> Parcel:
        if study.federation.secure_aggregation:
            self._own_sums()  # without keys it takes part in none, and says so at once
        self._prepared.clear()  # the cases may have changed since
        self._compared.forget()  # what was found for another study is none of this one's
        (hospital,) = self._own(study, request).hospitals
        folders = [hospital.cases, hospital.features, hospital.library, hospital.budget]
        state = json.dumps([each.digest for each in folders if each]).encode()
        data = keyed_digest(f"hospitals/{self._settings.name}", "data of a hospital", state)
        logger.info("agreed to a study of %d rounds", study.federation.rounds)
        return Parcel("done", {"name": self._settings.name, "data": data})

    def _train(self, study: Study, request: Parcel) -> Parcel:
        number = self._round(study, request)
        logger.info("training for round %d", number)
        update = self._update(study, request)
        if study.federation.secure_aggregation:
            logger.info("keeps the update of round %d, for a secure sum", number)
            return Parcel("done", {"update": self._told(update), "key": self._own_sums().key.hex()})
        names = [name for name in update.manifest()["files"] if name in SENT_FILES | {CONTROL_FILE}]
        files = {name: (update.folder / name).read_bytes() for name in names}
        files[CONFIG_FILE] = in_same_place(files[CONFIG_FILE], request.files[CONFIG_FILE])
        logger.info("sent the update of round %d", number)
        return Parcel("done", {}, files)

    def _update(self, study: Study, request: Parcel) -> Ref:
        """What this hospital trains for a request; it is found again if it has been trained."""
        number, local = self._round(study, request), LocalRule.model_validate(request.about["local"])
        hospital, settings = self._given(study, request, trained=number - 1)
        title, keeps = f"train round {number}", kept_parts(study)
        if local.control:
            hospital = hospital.model_copy(update={"control": self._control(study, request)})
        training = train_at_home if keeps else train_hospital
        update = within_part(
            "train", lambda: training(hospital=hospital, local=local, round_number=number, **settings), title
        )
        if local.control or keeps:
            self._trained.note(study_digest(study), number, update.path)
        if keeps:
            update = self._without(update, keeps, number)
        if budget := self._budget(study, request):
            within = read_budget(budget.folder)
            most = most_epsilon(self._settings.agreement, within.unit)
            self._released.release(update.path, study_digest(study), within, most)
        return update

    def _control(self, study: Study, request: Parcel) -> Ref | None:
        """This hospital's control variate, of what it sent in the rounds in which it counted; None before the first."""
        noted, used = self._trained.rounds(study_digest(study)), list(request.about["used"])
        if lost := [number for number in used if number not in noted]:
            raise NotAgreedError(f"Expected its own update of round {lost[0]}, which counted, found none.")

        def keep() -> Ref | None:
            control: Ref | None = None
            for number in used:
                control = keep_control(hospital=self._settings.name, before=control, update=find(noted[number]))
            return control

        return within_part("train", keep, "keep control") if used else None

    def _without(self, trained: Ref, keeps: tuple[str, ...], number: int) -> Ref:
        """What this hospital sends of what it trained."""
        name = self._settings.name
        return within_part(
            "train", lambda: send_update(hospital=name, trained=trained, keeps=keeps, round_number=number), "send"
        )

    def _budget(self, study: Study, request: Parcel) -> Ref | None:
        """What this hospital trains within, or the server's budget where hospitals are hidden; None without noise."""
        if study.federation.privacy.unit != "hospital":
            return self._own(study, request).hospitals[0].budget
        hospitals = asked_study(request).partition.hospitals
        return within_part("protect", lambda: plan_server_privacy(hospitals=hospitals, federation=study.federation))

    def _spent(self, study: Study, request: Parcel) -> list[Ref]:
        """The epsilon of what this hospital let out in a study, as it computes it; nothing without noise."""
        budget, rounds = self._budget(study, request), self._released.rounds(study_digest(study))
        if budget is None:
            return []
        name = self._settings.name
        return [within_part("protect", lambda: count_privacy(hospital=name, budget=budget, rounds=rounds))]

    def _privacy(self, study: Study, request: Parcel) -> Parcel:
        spent = self._spent(study, request)
        return Parcel("done", {}, {name: (ref.folder / name).read_bytes() for ref in spent for name in PRIVACY})

    def _offer(self, study: Study, request: Parcel) -> Parcel:
        """Be ready for a secure sum with what was trained."""
        from tasks.federate.privacy.masked import vector_of
        from tasks.federate.state import read_update

        update, number = self._update(study, request), self._round(study, request)
        logger.info("takes part in the secure sum of round %d", number)
        values = lambda: vector_of(read_update(update.folder, tensors=True))  # noqa: E731
        return Parcel("done", {"nonce": self._own_sums().begin(number, self._told(update), values)})

    def _images(self, study: Study, request: Parcel) -> Parcel:
        (hospital,) = self._own(study, request).hospitals
        return self._compared.answer(study, request, hospital.cases.folder)

    def _own_sums(self) -> Summing:
        """This hospital's side of secure sums. Raises NotAgreedError if it has no keys for them."""
        if self._sums is None:
            identity, others = own_keys(self._settings.secure_sums, "for a secure sum")
            record = SumRecord(ROOT / "hospitals" / self._settings.name / SUMS)
            fewest = self._settings.secure_sums.fewest
            self._sums = Summing(self._settings.name, identity, others, fewest, record)
        return self._sums

    def _told(self, update: Ref) -> str:
        """A digest of an update that nobody without this hospital's secret can compare with anything."""
        return keyed_digest(f"hospitals/{self._settings.name}", "update of a hospital", update.digest.encode())

    def _validate(self, study: Study, request: Parcel) -> Parcel:
        number = self._round(study, request)
        hospital, settings = self._given(study, request, trained=number)
        settings |= {"round_number": number, "min_cell": study.evaluation.min_cell}
        found = within_part(
            "validate", lambda: validate_hospital(hospital=hospital, **settings), f"validate round {number}"
        )
        return Parcel("done", {}, {name: (found.folder / name).read_bytes() for name in VALIDATION})

    def _evaluate(self, study: Study, request: Parcel) -> Parcel:
        """Answer and score the own test cases, write a run with its pages, and tell what may be told."""
        hospital, _ = self._given(study, request, trained=study.federation.rounds)
        partition = study.partition.model_copy(update={"hospitals": asked_study(request).partition.hospitals})
        named = study.model_copy(update={"partition": partition})  # its answers are called as in the federation
        elsewhere = self._compared.trained_elsewhere(study, hospital.cases.folder)
        prepared, rounds = self._own(study, request), list(request.about["rounds"])
        model, spent = choose_model(study.model), self._spent(study, request)
        own = self._personal(named, model, hospital, request, prepared.hospitals[0].adapter)
        found, run = within_part(
            "evaluate",
            lambda: evaluate_own(named, model, own, prepared, rounds, spent, elsewhere),
        )
        logger.info("answered and scored the test cases: %s", run)
        files = told_scores(found, prepared.seen, self._settings.agreement.group_scores)
        return Parcel("done", {}, files if self._settings.agreement.scores else {})

    def _personal(
        self, study: Study, model: ModelChoice, hospital: HospitalRefs, request: Parcel, untrained: Ref
    ) -> Personalised:
        """This hospital with the adapter for all, and its personal one, which stays here."""
        trained, kind = hospital.model_copy(update={"budget": None}), study.federation.personal
        if kind == "none":
            return Personalised([trained])
        member, rounds = list(request.about["member"]), study.federation.rounds
        begun = {number: start_in(request.files, number) for number in member}
        if not begun.get(member[0] if member else 0) and kind in ("ditto", "mixture"):
            raise NotAgreedError("Expected the adapters that rounds began with in the request, found none.")
        starts = {number: keep_adapter(files) for number, files in begun.items() if files}
        federated = Federated(
            trained=[trained],
            rows=[{}] * rounds,
            validated=[],
            starts=[starts.get(number, hospital.adapter) for number in range(1, rounds + 1)],
            members=[[hospital.name] if number in member else [] for number in range(1, rounds + 1)],
            state=sent_adapter(request),
        )
        initial = next(iter(starts.values()), untrained)
        return within_part("personalise", lambda: personalise(study, model, federated, initial))

    def _round(self, study: Study, request: Parcel) -> int:
        number = request.about.get("round")
        if type(number) is not int or not 1 <= number <= study.federation.rounds:
            raise NotAgreedError(f"Expected a round from 1 to {study.federation.rounds}, found {number}.")
        return number

    def _own(self, study: Study, request: Parcel) -> Prepared:
        """This hospital, prepared for a study; within a budget of noise if it is to train with any."""
        if study not in self._prepared:
            self._prepared.clear()
            prepared = prepare_own(self._settings, study, choose_model(study.model))
            if study.federation.privacy.unit in ("example", "patient"):
                joined = asked_study(request).partition.hospitals
                allowed, hospitals, _ = within_part("protect", lambda: protect(study, prepared.hospitals, joined))
                if allowed.federation.rounds < study.federation.rounds:
                    raise NotAgreedError(
                        f"Expected at most {allowed.federation.rounds} rounds within its epsilon, found "
                        f"{study.federation.rounds}."
                    )
                prepared = replace(prepared, hospitals=hospitals)
            self._prepared[study] = prepared
        return self._prepared[study]

    def _given(self, study: Study, request: Parcel, trained: int) -> tuple[HospitalRefs, dict[str, Any]]:
        """This hospital with the adapter of a request, and the settings that all its training shares.

        Where it keeps a part of the adapter, that is of the last round up to `trained` in which it has trained.
        """
        if not {ADAPTER_FILE, CONFIG_FILE} <= request.files.keys():
            raise NotAgreedError("Expected an adapter in the request, found none.")
        if any(name.split("/", 1)[-1] not in ADAPTER for name in request.files):
            raise NotAgreedError(
                "Expected only an adapter's files in the request, found others: use one version of fed-rag."
            )
        rank = json.loads(request.files[CONFIG_FILE]).get("r")
        if rank != study.lora.r:
            raise NotAgreedError(f"Expected an adapter of rank {study.lora.r} (lora.r), found rank {rank}.")
        (hospital,) = self._own(study, request).hospitals
        adapter = sent_adapter(request)
        if kept_parts(study):
            noted = self._trained.rounds(study_digest(study))
            last = max((number for number in noted if number <= trained), default=None)
            own = find(noted[last]) if last else hospital.adapter
            name, state = hospital.name, adapter
            adapter = within_part(
                "train", lambda: join_adapter(hospital=name, state=state, trained=own, round_number=trained), "join"
            )
        return hospital.given(adapter), training_settings(study, choose_model(study.model))
