"""One cell of a table of attacks: hospitals train with attackers among them, and the others answer their test cases."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import unmapped

from flows.coordinator import (
    RUNTIMES,
    aggregation,
    given,
    holding,
    keep_controls,
    round_summary,
    rounds,
    training_settings,
)
from flows.coordinator import held_out_loss as mean_loss
from flows.evaluate import answering
from flows.hospital import build_libraries
from flows.judged import pictures
from flows.mapped import gather
from flows.parts import within_part
from flows.prepare import prepare
from flows.progress import Steps
from flows.runtimes.falsified import Falsified
from flows.runtimes.local import Local
from flows.runtimes.runtime import Runtime, Trained
from flows.suitable import taking_part
from tasks.answer.step import predict
from tasks.attack.cases import TARGET
from tasks.attack.step import alter_cases
from tasks.attack.updates import ATTACKS
from tasks.compare.attack_results import Answered, Outcomes
from tasks.errors import StudyError
from tasks.federate.lora_mean.rule import choose_rule
from tasks.records import Case, Prediction, read_table
from tasks.records.federation import HospitalRefs, Order
from tasks.score.outcomes import judge
from tasks.settings import ModelChoice, Study
from tasks.store import Ref
from tasks.store.checkpoints import checkpoints_every
from tasks.text.meaning import meaning

POISONED = ("label-flip", "backdoor")
"""Attacks in which attackers train on altered cases."""


class Scenes:
    """The hospitals before training, prepared once for each seed and number of hospitals."""

    def __init__(self, model: ModelChoice, steps: Steps) -> None:
        self.model = model
        self._steps = steps
        self._prepared: dict[tuple[int, int], list[HospitalRefs]] = {}

    def hospitals(self, study: Study) -> list[HospitalRefs]:
        """Those of a study; studies that differ in the federation alone share them."""
        place = study.seed, study.partition.hospitals
        if place not in self._prepared:
            prepared = within_part("prepare", lambda: prepare(study, self.model, self._steps))
            self._prepared[place] = prepared.hospitals
        return self._prepared[place]


@dataclass(frozen=True)
class Trial:
    """What training under an attack leaves."""

    honest: list[HospitalRefs]
    """The hospitals that do not attack, with their final adapters."""
    turned_away: int
    """Attackers' updates that the door turned away, over all rounds."""
    wronged: int
    """Updates of the others that it turned away."""


def run_cell(
    study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], attack: str, title: str
) -> Outcomes | str:
    """Train under an attack and let the honest hospitals answer; why there is nothing to answer with, if so.

    They answer about marked images too if the attack is a backdoor, and if there is none, to compare. `title` is what
    the dashboard calls it.
    """

    def cell() -> Outcomes | str:
        try:
            trial = train_attacked(study, model, hospitals, attack)
        except StudyError as error:
            if attack == "none":  # no attack is to blame
                raise
            return str(error)
        asked = marked(study, model, hospitals, trial) if attack in ("none", "backdoor") else []
        return Outcomes(answer(study, model, trial.honest), asked, trial.turned_away, trial.wronged)

    return within_part("cell", cell, title)


def marked(study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], trial: Trial) -> list[Answered]:
    """Answers to the test cases with the backdoor's mark in their images."""
    altered = poisoned(study, model, hospitals[: len(trial.honest)], "marked tests")
    return answer(study, model, given(altered, [hospital.adapter for hospital in trial.honest]))


def train_attacked(study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], attack: str) -> Trial:
    """Run a study's rounds while the last `federation.byzantine` hospitals attack; with `none` they do not.

    Raises StudyError if a round leaves no sound update.
    """
    names, f = [hospital.name for hospital in hospitals], study.federation.byzantine
    bad = names[-f:]
    runtime: Runtime = RUNTIMES[study.engine.executor]
    if attack in ATTACKS:
        runtime = Falsified(runtime, attack, bad)
    training = {hospital.name: hospital for hospital in hospitals}
    if attack in POISONED:
        training |= {hospital.name: hospital for hospital in poisoned(study, model, hospitals[-f:], attack)}
    settings, participation = training_settings(study, model), taking_part(study, names)

    def train(orders: dict[str, Order], starts: dict[str, Ref]) -> Trained:
        return runtime.train(holding(training, starts), list(orders.values()), settings)

    left_out: list[str] = []
    strategy, put_together = choose_rule(study.federation.server), aggregation(study, model, participation)
    with checkpoints_every(study.engine.checkpoint_minutes):
        for this in rounds(strategy, participation, hospitals[0].adapter, train, put_together):
            training |= keep_controls(training, this)
            left_out += round_summary(this)["quarantined"]
    turned_away = sum(name in bad for name in left_out)
    return Trial(given(hospitals, list(this.following.values()))[:-f], turned_away, len(left_out) - turned_away)


def poisoned(study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], how: str) -> list[HospitalRefs]:
    """The hospitals with altered cases (see `alter_cases`) and, where images change, all that is made of these."""
    names = [hospital.name for hospital in hospitals]
    cases = [hospital.cases for hospital in hospitals]
    altered = gather(alter_cases, names, hospital=names, cases=cases, how=unmapped(how))
    changes = [{"cases": cases} for cases in altered]
    if how != "label-flip":
        made = zip(*build_libraries(study, model, names, altered, None), strict=True)
        pairs = zip(changes, made, strict=True)
        changes = [each | {"features": features, "library": library} for each, (features, library) in pairs]
    return [each.model_copy(update=change) for each, change in zip(hospitals, changes, strict=True)]


def answer(study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs]) -> list[Answered]:
    """Answer the hospitals' test cases with their adapters, and judge the answers."""
    names = [hospital.name for hospital in hospitals]
    common = answering(study, model) | {"configuration": unmapped("under attack")}
    predicted = gather(predict, names, hospital=list(hospitals), **common)
    rows = []
    for hospital, predictions in zip(hospitals, predicted, strict=True):
        cases = read_table(hospital.cases.folder / "cases.parquet", Case)
        numbers, images = pictures(hospital.cases), {case.id: case.image_id for case in cases}
        for row in read_table(predictions.folder / "predictions.parquet", Prediction):
            target = meaning(TARGET[row.kind])
            rows.append(
                Answered(
                    study.seed,
                    numbers[images[row.case_id]],
                    row.kind,
                    judge(row).correct,
                    meaning(row.reference) != target,
                    meaning(row.prediction) == target,
                )
            )
    return rows


def held_out_loss(study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs]) -> float:
    """The mean loss of the hospitals' adapters on their held-out cases; NaN if there are none."""
    told = {"round_number": study.federation.rounds, "min_cell": 1}
    loss = mean_loss(Local().validate(hospitals, training_settings(study, model) | told))
    return float("nan") if loss is None else loss
