"""What hospitals do with their own cases: what they retrieve from, failure modes, and where answers come from."""

from collections.abc import Sequence
from typing import Any

from prefect import unmapped

from flows.runtimes.local import gather
from tasks.explain.step import count_failures, explain_some, find_failures, share_means
from tasks.features.step import take_features
from tasks.federate.step import average_fusion
from tasks.records.federation import HospitalRefs, LibrarySources
from tasks.retrieve.encoders.open import content_of
from tasks.retrieve.step import (
    build_hospital_library,
    encode_hospital,
    initial_gated_fusion,
    train_hospital_fusion,
)
from tasks.settings import ModelChoice, Study
from tasks.store import Ref


def build_libraries(
    study: Study, model: ModelChoice, hospitals: Sequence[str], cases: Sequence[Ref], seen: Ref
) -> tuple[list[Ref], list[Ref], list[Ref]]:
    """Each hospital's features out of those `seen` by the model's tower, and the library of its training cases.

    The third list is all that was made on the way, these among it.
    """
    common: dict[str, Any] = {"model": unmapped(model.seeing)}
    features = gather(take_features.map(hospital=hospitals, cases=cases, seen=unmapped(seen), **common), hospitals)
    settings, encoded = study.retrieval, list[Ref]()
    if settings.encoding.encodes:
        common |= {"encoding": unmapped(settings.encoding), "content": unmapped(content_of(settings.encoding, model))}
        encoded = gather(encode_hospital.map(hospital=hospitals, cases=cases, **common), hospitals)
    rows: list[Ref | None] = [*encoded] or [None] * len(hospitals)
    sources = [
        LibrarySources(name=name, cases=its_cases, features=its_features, encoded=its_rows)
        for name, its_cases, its_features, its_rows in zip(hospitals, cases, features, rows, strict=True)
    ]
    fusion, fused = train_gated_fusion(study, sources) if settings.fusion == "gated" else (None, [])
    library = settings.library(study.federation.holdout, study.seed)
    built = build_hospital_library.map(hospital=sources, settings=unmapped(library), fusion=unmapped(fusion))
    libraries = gather(built, hospitals)
    return features, libraries, [*features, *encoded, *fused, *libraries]


def train_gated_fusion(study: Study, hospitals: Sequence[LibrarySources]) -> tuple[Ref, list[Ref]]:
    """The rounds of the gated fusion: hospitals train on their own cases, their updates are averaged.

    Returns the last fusion, and all that was made on the way.
    """
    first = hospitals[0]
    widths = {"image_width": first.features.manifest()["summary"]["width"], "text_width": 0}
    if first.encoded:
        summary = first.encoded.manifest()["summary"]
        widths = {name: summary[name] or width for name, width in widths.items()}
    fusion = initial_gated_fusion(**widths, seed=study.seed)
    made = [fusion]
    settings: dict[str, Any] = {
        "fusing": unmapped(study.retrieval.fusing),
        "holdout": unmapped(study.federation.holdout),
        "seed": unmapped(study.seed),
    }
    for number in range(1, study.retrieval.fusion_rounds + 1):
        common = settings | {"fusion": unmapped(fusion), "round_number": unmapped(number)}
        training = train_hospital_fusion.map(hospital=hospitals, **common)
        updates = gather(training, [hospital.name for hospital in hospitals])
        fusion = average_fusion(updates=updates, round_number=number)
        made += [*updates, fusion]
    return fusion, made


def find_and_count(
    study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], relied: Sequence[Ref]
) -> tuple[list[Ref], list[Ref]]:
    """Every hospital's failure modes by case, and the counts that it shares of them.

    Nothing where `evaluation.examined` is 0 or no prompts were altered: `relied` are the answers to these.
    """
    if not study.evaluation.examined or not relied:
        return [], []
    found = find_failures.map(
        hospital=hospitals,
        reliance=relied,
        model=unmapped(model),
        lora=unmapped(study.lora),
        shown=unmapped(study.retrieval.shown),
        tokens=unmapped(study.evaluation.tokens_per_pass),
        count=unmapped(study.evaluation.examined),
        seed=unmapped(study.seed),
    )
    names = [hospital.name for hospital in hospitals]
    failures = gather(found, names)
    counted = count_failures.map(hospital=names, failures=failures, min_cell=unmapped(study.evaluation.min_cell))
    return failures, gather(counted, names)


def show_where(
    study: Study, model: ModelChoice, hospitals: Sequence[HospitalRefs], answered: Sequence[Sequence[Ref]]
) -> tuple[list[Ref], list[Ref]]:
    """Every hospital's maps and shares of a few test cases' answers, and the mean shares that leave it.

    Nothing where `evaluation.saliency` is 0. `answered` are each hospital's predictions, its trained adapter's first.
    """
    settings = study.evaluation
    if not settings.saliency:
        return [], []
    # In the order in which other stages draw from each other's cases, so that what is explained was looked at by all.
    counts = [count for count in (settings.reliance, settings.examined, settings.saliency) if count]
    explained = explain_some.map(
        hospital=hospitals,
        predictions=[refs[0] for refs in answered],
        model=unmapped(model),
        lora=unmapped(study.lora),
        answering=unmapped(settings.answering),
        shown=unmapped(study.retrieval.shown),
        counts=unmapped(counts),
        seed=unmapped(study.seed),
    )
    names = [hospital.name for hospital in hospitals]
    saliency = gather(explained, names)
    shared = share_means.map(hospital=names, saliency=saliency, min_cell=unmapped(settings.min_cell))
    return saliency, gather(shared, names)
