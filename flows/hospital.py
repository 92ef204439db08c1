"""The hospitals' part of a study: libraries, the gated fusion, failure modes and explanations."""

from collections.abc import Sequence
from typing import Any

from prefect import unmapped

from flows.coordinator import rounds, tell_missing
from flows.mapped import gather, gather_named
from flows.runtimes.runtime import Trained, seconds
from tasks.explain.step import count_failures, explain_some, find_failures, share_means
from tasks.features.step import take_features
from tasks.federate.participation import Participation
from tasks.federate.step import aggregate_fusion
from tasks.federate.strategies.strategy import choose
from tasks.records.federation import HospitalRefs, LibrarySources, Order
from tasks.retrieve.encoders.open import content_of
from tasks.retrieve.step import (
    build_hospital_library,
    encode_hospital,
    initial_gated_fusion,
    train_hospital_fusion,
)
from tasks.settings import ModelChoice, ParticipationSettings, Study
from tasks.store import Ref


def build_libraries(
    study: Study, model: ModelChoice, hospitals: Sequence[str], cases: Sequence[Ref], seen: Ref | None
) -> tuple[list[Ref], list[Ref]]:
    """Make each hospital's features and library; `seen` holds the vision features of all images.

    Without `seen`, the tower runs over each hospital's own images.
    """
    common: dict[str, Any] = {"model": unmapped(model.seeing)}
    projected = unmapped(not study.lora.projector)
    taken: dict[str, Any] = {"hospital": hospitals, "cases": cases}
    features = gather(take_features, hospitals, **taken, seen=unmapped(seen), projected=projected, **common)
    settings, encoded = study.retrieval, list[Ref | None]([None] * len(hospitals))
    if settings.encoding.encodes:
        common |= {"encoding": unmapped(settings.encoding), "content": unmapped(content_of(settings.encoding, model))}
        encoded[:] = gather(encode_hospital, hospitals, **taken, **common)
    sources = [
        LibrarySources(name=name, cases=own, features=own_features, encoded=rows)
        for name, own, own_features, rows in zip(hospitals, cases, features, encoded, strict=True)
    ]
    fusions = train_gated_fusion(study, sources) if settings.fusion == "gated" else unmapped(None)
    library = settings.library(study.federation.holdout, study.federation.held_out_by(study.seed))
    common = {"settings": unmapped(library), "fusion": fusions}
    return features, gather(build_hospital_library, hospitals, hospital=sources, **common)


def train_gated_fusion(study: Study, hospitals: Sequence[LibrarySources]) -> list[Ref]:
    """Run the rounds of the gated fusion: hospitals train on their cases, the server aggregates.

    Returns each hospital's final fusion.
    """
    first = hospitals[0]
    widths = {"image_width": first.features.manifest()["summary"]["width"], "text_width": 0}
    if first.encoded:
        summary = first.encoded.manifest()["summary"]
        widths = {name: summary[name] or width for name, width in widths.items()}
    start = initial_gated_fusion(**widths, seed=study.seed)
    settings: dict[str, Any] = {
        "fusing": unmapped(study.retrieval.fusing),
        "holdout": unmapped(study.federation.holdout),
        "seed": unmapped(study.seed),
    }

    here = {hospital.name: hospital for hospital in hospitals}
    everyone = Participation(ParticipationSettings(), list(here), study.retrieval.fusion_rounds, study.seed)

    def train(orders: dict[str, Order], starts: dict[str, Ref]) -> Trained:
        number = unmapped(next(iter(orders.values())).round)
        fusion = [starts[name] for name in here]
        common = settings | {"round_number": number}
        updates = gather_named(train_hospital_fusion, list(here), hospital=hospitals, fusion=fusion, **common)
        return Trained(updates, seconds(updates.values()))

    def put_together(*, trained: Trained, **taken: Any) -> Ref:
        names, updates = list(trained.updates), list(trained.updates.values())
        return aggregate_fusion(strategy=study.federation.server, hospitals=names, updates=updates, **taken)

    fusions = dict.fromkeys(here, start)
    for each in rounds(choose(study.federation.server), everyone, start, train, put_together):
        tell_missing(each)
        fusions = each.following
    return list(fusions.values())


def find_and_count(
    study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], relied: Sequence[Ref]
) -> tuple[list[Ref], list[Ref]]:
    """Find every hospital's failure modes by case, and count them; returns both, of which only counts are shared.

    `relied` holds the answers to perturbed prompts. Both results are empty if `relied` is empty or
    `evaluation.examined` is 0.
    """
    if not study.evaluation.examined or not relied:
        return [], []
    names = [hospital.name for hospital in hospitals]
    failures = gather(
        find_failures,
        names,
        hospital=hospitals,
        reliance=relied,
        model=unmapped(model),
        lora=unmapped(study.lora),
        context=unmapped(study.retrieval.context),
        tokens=unmapped(study.evaluation.tokens_per_pass),
        count=unmapped(study.evaluation.examined),
        seed=unmapped(study.seed),
    )
    least = unmapped(study.evaluation.min_cell)
    return failures, gather(count_failures, names, hospital=names, failures=failures, min_cell=least)


def show_where(
    study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], answered: Sequence[Sequence[Ref]]
) -> tuple[list[Ref], list[Ref]]:
    """Explain the answers to some test cases of every hospital; returns the maps and shares, and the mean shares.

    Only the mean shares leave the hospital. Both lists are empty if `evaluation.saliency` is 0. `answered` holds each
    hospital's predictions, the trained adapter's first.
    """
    settings = study.evaluation
    if not settings.saliency:
        return [], []
    # The order in which earlier stages sample, so that the explained cases were also perturbed and examined.
    counts = [count for count in (settings.reliance, settings.examined, settings.saliency) if count]
    names = [hospital.name for hospital in hospitals]
    saliency = gather(
        explain_some,
        names,
        hospital=hospitals,
        predictions=[refs[0] for refs in answered],
        model=unmapped(model),
        lora=unmapped(study.lora),
        answering=unmapped(settings.answering),
        context=unmapped(study.retrieval.context),
        counts=unmapped(counts),
        seed=unmapped(study.seed),
    )
    least = unmapped(settings.min_cell)
    return saliency, gather(share_means, names, hospital=names, saliency=saliency, min_cell=least)
