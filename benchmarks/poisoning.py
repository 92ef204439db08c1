"""Poisoned libraries: entries made to be near everything, with wrong answers, and whether a score tells them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.cluster import KMeans

from benchmarks.wards import Trained, Ward, accuracy_cells, insert
from tasks.engine.shared import shared_base
from tasks.engine.vision import Features, encode_images
from tasks.ingest import phantom
from tasks.records import Case, Kind, Neighbour
from tasks.retrieve.similarity import fit_encoder

CANDIDATES = 150
"""Pictures among which a poisoner looks for the one that is nearest to most."""
ENTRIES = 20
"""Questions of a library, its commonest, for which an attacker makes entries."""
CENTRES = 3
"""Of the images of a question, for an attacker who can make a picture of any features."""
PAYLOAD: dict[Kind, str] = {"closed": "yes", "open": "pacemaker"}
"""What the attacker wants to be answered; no phantom image shows a pacemaker."""


def poisoning(trained: Trained) -> None:
    """Entries that are near everything, with wrong answers; and whether an outlier score would have told them."""
    drawn = phantom.read(images=CANDIDATES, seed=4321, public=True, test_fraction=0.2).images
    with shared_base(trained.model) as base:
        seen = encode_images(base, [replace(image, id=f"drawn-{n}") for n, image in enumerate(drawn)])
    print(
        "| poisoned entries | shown with | closed | wrong yes | open | wrong payload | told by occurrence | by mean |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(f"| none | 0.000 | {accuracy_cells(trained.answers(trained.wards), PAYLOAD)} | - | - |", flush=True)
    for way in (by_picture, by_features):
        made = [way(ward, seen) for ward in trained.wards]
        wards = [insert(ward, *each) for ward, each in zip(trained.wards, made, strict=True)]
        entries = sum(len(each) for each, _ in made)
        found = " | ".join(outliers(wards, score) for score in (occurrence, mean_similarity))
        reached = reach(wards, trained.study.retrieval.most)
        print(
            f"| {way.__name__}: {entries} | {reached} | {accuracy_cells(trained.answers(wards), PAYLOAD)} | {found} |",
            flush=True,
        )


def commonest(ward: Ward) -> list[tuple[str, Kind]]:
    """The library's commonest questions, each with its kind."""
    return [
        question for question, _ in Counter((case.question, case.kind) for case in ward.library).most_common(ENTRIES)
    ]


def poison(ward: Ward, images: Mapping[str, Sequence[str]]) -> list[Case]:
    """Entries with wrong answers: each of the questions with each of the attacker's images for it."""
    any_case = ward.library[0]
    return [
        replace(any_case, id=f"poison:{n}:{at}", image_id=at, question=question, kind=kind, answer=PAYLOAD[kind])
        for n, (question, kind) in enumerate(commonest(ward))
        for at in images[question]
    ]


def by_picture(ward: Ward, seen: Features) -> tuple[list[Case], Features]:
    """One picture: the candidate that is nearer than their third nearest own image to most of the library's images."""
    images, candidates = sorted({case.image_id for case in ward.library}), list(seen.starts)
    pooled = ward.hospital.features.pooled(images)
    encoder = fit_encoder(pooled, [""] * len(images), 1.0)
    rows = encoder.encode(pooled, [""] * len(images))
    third = np.sort(rows @ rows.T, axis=1)[:, -4]  # behind the image itself
    nearer = rows @ encoder.encode(seen.pooled(candidates), [""] * len(candidates)).T > third[:, None]
    best = candidates[int(nearer.sum(0).argmax())]
    return poison(ward, {question: [best] for question, _ in commonest(ward)}), seen


def by_features(ward: Ward, _: Features) -> tuple[list[Case], Features]:
    """The best that pictures made for the vision tower could do: features at the centres of the library's own."""
    images: dict[str, list[str]] = {}
    made: dict[str, torch.Tensor] = {}
    features = ward.hospital.features
    for n, (question, _kind) in enumerate(commonest(ward)):
        image_ids = sorted({case.image_id for case in ward.library if case.question == question})
        rows = torch.stack([features.of(image) for image in image_ids])
        groups = KMeans(CENTRES, n_init=4, random_state=0).fit_predict(rows.mean(1).float().numpy())
        made |= {f"made-{n}-{group}": rows[torch.from_numpy(groups) == group].mean(0) for group in set(groups.tolist())}
        images[question] = [name for name in made if name.startswith(f"made-{n}-")]
    length = len(next(iter(made.values())))
    starts = {name: place * length for place, name in enumerate(made)}
    grid = next(iter(features.grids.values()))
    return poison(ward, images), Features(
        torch.cat(list(made.values())), starts, dict.fromkeys(made, grid), features.merge
    )


def reach(wards: Sequence[Ward], k: int) -> str:
    """The share of questions that are shown a poisoned entry."""
    reached = [{each.case_id for each in ward.hospital.neighbours if bad(each) and each.rank < k} for ward in wards]
    hit = sum(case.id in ids for ward, ids in zip(wards, reached, strict=True) for case in ward.test)
    return f"{hit / sum(len(ward.test) for ward in wards):.3f}"


def bad(neighbour: Neighbour) -> bool:
    """Whether it is a poisoned entry."""
    return neighbour.neighbour_id.startswith("poison:")


def outliers(wards: Sequence[Ward], score: Callable[[Ward], dict[str, float]]) -> str:
    """Poisoned entries whose score is above that of 99 % of the library's own."""
    found = count = 0
    for ward in wards:
        scores = score(ward)
        poisoned = [value for case_id, value in scores.items() if case_id.startswith("poison:")]
        clean = [value for case_id, value in scores.items() if not case_id.startswith("poison:")]
        found += sum(map(float(np.quantile(clean, 0.99)).__lt__, poisoned))
        count += len(poisoned)
    return f"{found} of {count}"


def occurrence(ward: Ward) -> dict[str, float]:
    """How often each entry is among the nearest 3 of the others (Radovanovic et al., "Hubs in Space", 2010)."""
    library = {case.id for case in ward.library}
    counts = Counter(each.neighbour_id for each in ward.hospital.neighbours if each.case_id in library)
    return {case_id: counts[case_id] for case_id in library}


def mean_similarity(ward: Ward) -> dict[str, float]:
    """Each entry's mean similarity to all of the library."""
    questions = [case.question for case in ward.library]
    pooled = ward.hospital.features.pooled([case.image_id for case in ward.library])
    rows = fit_encoder(pooled, questions, 0.5).encode(pooled, questions)
    return dict(zip((case.id for case in ward.library), (rows @ rows.mean(0)).tolist(), strict=True))
