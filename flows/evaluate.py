"""A study's work after training: answers, scores, perturbed prompts and explanations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import unmapped

from flows.coordinator import given
from flows.hospital import find_and_count, show_where
from flows.mapped import gather
from flows.progress import Steps
from tasks.answer.step import (
    answer_baselines,
    answer_held_out,
    count_gain,
    count_withheld,
    measure_reliance,
    predict,
    score_hospital,
    tune_retrieval,
)
from tasks.records.federation import HospitalRefs
from tasks.report.results import TEXT_ONLY
from tasks.settings import ModelChoice, Study
from tasks.store import Ref


@dataclass(frozen=True)
class Evaluated:
    """The folders that evaluation makes; each list is in the order of the hospitals."""

    kept: dict[str, Sequence[Ref | list[Ref]]]
    """Folders for a run's `references.json`, by the name used there."""
    scores: list[Ref]
    """Shared scores."""
    reliance: list[Ref]
    """Shared scores with perturbed prompts; this and the lists below are empty if not requested."""
    failures: list[Ref]
    """Shared counts of failure modes."""
    shares: list[Ref]
    """Shared mean shares of the prompt's parts in the explained answers."""
    abstention: list[Ref]
    """Shared counts of answers that would be withheld."""
    gains: list[Ref]
    """Shared counts of right answers with the adapter for all and with the personal one."""


@dataclass(frozen=True)
class Adapters:
    """The adapters that a study answers with; each list is in the order of the hospitals."""

    trained: list[HospitalRefs]
    """The hospitals with their adapters after the last round."""
    untrained: list[HospitalRefs]
    """The same with the adapter that the first round started from."""
    personal: list[Ref] = field(default_factory=list)
    """Their personal adapters; empty if there are none."""


def evaluate(
    study: Study, model: ModelChoice, adapters: Adapters, steps: Steps, elsewhere: Sequence[str] = ()
) -> Evaluated:
    """Answer and score every hospital's test cases, then measure what the answers depend on.

    `elsewhere` has the ids of test images that hospitals on other machines train on.
    """
    trained, tuned = tune(study, model, adapters.trained)
    configurations = {study.configuration: trained, "base": adapters.untrained}
    if adapters.personal:
        configurations[study.personal_configuration] = given(trained, adapters.personal)
    answered = answer_all(study, model, configurations)
    names = [hospital.name for hospital in trained]
    scored = gather(
        score_hospital,
        names,
        hospital=names,
        cases=[hospital.cases for hospital in trained],
        predictions=answered,
        min_cell=unmapped(study.evaluation.min_cell),
        elsewhere=unmapped(list(elsewhere)),
    )
    gains = gained(study, trained, answered) if adapters.personal else []
    steps.done("answered and scored the test cases")

    held_out, withheld = calibrate(study, model, trained, answered)
    relied, perturbed = rely(study, model, trained)
    failures, failing = find_and_count(study, model, trained, relied)
    steps.done("asked again with altered prompts" if relied else "left out what answers rely on")

    explained, shares = show_where(study, model, trained, answered)
    steps.done("explained some answers" if explained else "left out where answers come from")

    optional = {"reliance": relied, "failures": failures, "saliency": explained, "calibration": held_out}
    optional |= {"tuning": tuned, "personal": adapters.personal}
    kept: dict[str, Any] = {"predictions": answered, "scores": scored}
    kept |= {name: refs for name, refs in optional.items() if refs}
    return Evaluated(kept, scored, perturbed, failing, shares, withheld, gains)


def tune(study: Study, model: ModelChoice, hospitals: list[HospitalRefs]) -> tuple[list[HospitalRefs], list[Ref]]:
    """Let each hospital choose how it uses its retrieved cases; returns the hospitals with their choices, and these.

    The list of choices is empty if the settings leave nothing to choose.
    """
    if not study.retrieval.tunes:
        return hospitals, []
    tuned = gather(
        tune_retrieval,
        [hospital.name for hospital in hospitals],
        hospital=hospitals,
        **answering(study, model),
        mixture=unmapped(study.retrieval.mixture),
        holdout=unmapped(study.federation.holdout),
        seed=unmapped(study.federation.held_out_by(study.seed)),
    )
    return [each.model_copy(update={"tuning": ref}) for each, ref in zip(hospitals, tuned, strict=True)], tuned


def answer_all(study: Study, model: ModelChoice, configurations: Mapping[str, list[HospitalRefs]]) -> list[list[Ref]]:
    """Answer every hospital's test cases with each adapter, and by the baselines; returns references by hospital.

    `configurations` holds, by name, the hospitals with their adapters.
    The trained adapter also answers multiple-choice cases without the image, if there are any.
    """
    settings = answering(study, model)
    trained = configurations[study.configuration]
    names = [hospital.name for hospital in trained]
    jobs = [(configuration, given, False) for configuration, given in configurations.items()]
    if any(hospital.cases.manifest()["summary"]["test_choices"] for hospital in trained):
        jobs.append((TEXT_ONLY, trained, True))
    answered = [
        gather(
            predict,
            names,
            hospital=given,
            **settings,
            configuration=unmapped(configuration),
            without_image=unmapped(without_image),
        )
        for configuration, given, without_image in jobs
    ]
    known: dict[str, Any] = {
        name: [getattr(each, name) for each in trained] for name in ("cases", "features", "library")
    }
    answered.append(gather(answer_baselines, names, hospital=names, **known, seed=unmapped(study.seed)))
    return [list(refs) for refs in zip(*answered, strict=True)]


def gained(study: Study, hospitals: list[HospitalRefs], answered: Sequence[list[Ref]]) -> list[Ref]:
    """What hospitals share of the difference that their personal adapters make, image by image."""
    names = [hospital.name for hospital in hospitals]
    return gather(
        count_gain,
        names,
        hospital=names,
        configurations=unmapped([study.configuration, study.personal_configuration]),
        cases=[hospital.cases for hospital in hospitals],
        predictions=answered,
        min_cell=unmapped(study.evaluation.min_cell),
    )


def rely(study: Study, model: ModelChoice, hospitals: list[HospitalRefs]) -> tuple[list[Ref], list[Ref]]:
    """Answer some test cases of every hospital with perturbed prompts; returns the answers, and their shared scores.

    Both lists are empty if `evaluation.reliance` is 0.
    """
    if not study.evaluation.reliance:
        return [], []
    drawn: dict[str, Any] = {"count": unmapped(study.evaluation.reliance), "seed": unmapped(study.seed)}
    names = [hospital.name for hospital in hospitals]
    relied = gather(measure_reliance, names, hospital=hospitals, **answering(study, model), **drawn)
    counted = gather(
        score_hospital,
        names,
        hospital=names,
        cases=[hospital.cases for hospital in hospitals],
        predictions=[[ref] for ref in relied],
        min_cell=unmapped(study.evaluation.min_cell),
        by_image=unmapped(False),
    )
    return relied, counted


def calibrate(
    study: Study, model: ModelChoice, hospitals: list[HospitalRefs], answered: Sequence[list[Ref]]
) -> tuple[list[Ref], list[Ref]]:
    """Answer each hospital's held-out cases; returns these answers, and shared counts of withheld test answers.

    Both lists are empty if `evaluation.coverage` is 1.
    """
    if study.evaluation.coverage == 1:
        return [], []
    chosen: dict[str, Any] = {"configuration": unmapped(study.configuration)}
    holdout: dict[str, Any] = {
        "holdout": unmapped(study.federation.holdout),
        "seed": unmapped(study.federation.held_out_by(study.seed)),
    }
    names = [hospital.name for hospital in hospitals]
    held_out = gather(answer_held_out, names, hospital=hospitals, **chosen, **answering(study, model), **holdout)
    counted = gather(
        count_withheld,
        names,
        hospital=names,
        **chosen,
        cases=[hospital.cases for hospital in hospitals],
        predictions=answered,
        calibration=held_out,
        coverage=unmapped(study.evaluation.coverage),
        min_cell=unmapped(study.evaluation.min_cell),
    )
    return held_out, counted


def answering(study: Study, model: ModelChoice) -> dict[str, Any]:
    """The parameters of answering that all hospitals share."""
    return {
        "model": unmapped(model),
        "lora": unmapped(study.lora),
        "answering": unmapped(study.evaluation.answering),
        "context": unmapped(study.retrieval.context),
    }
