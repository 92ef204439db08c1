"""What is retrieved: answer recall and agreement of the cases found, by way of comparing, dataset and split.

    python benchmarks/retrieval_quality.py [--held-out] [DATASET ...]

A study's own stages run, with four hospitals: each searches its own training cases for its own test cases, never the
image asked about, its near-duplicates or the same patient. A case is a hit where its normalised answer is that of the
case asked. Intervals are of 1,000 bootstrap resamples of the images asked about. With `--held-out` test cases are left
out and a fifth of the training images are asked about instead: what settings may be chosen by.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")

import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flows  # noqa: F401  (sets the libraries' reporting off)
from tasks.audit.step import audit
from tasks.cases.holdout import split_holdout
from tasks.engine.identity import choose_model
from tasks.features.step import take_features
from tasks.federate.step import aggregate_fusion
from tasks.ingest.step import ingest
from tasks.partition.step import partition, take_cases
from tasks.records import Case, Neighbour, read_table, write_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.step import build_hospital_library, initial_gated_fusion, train_hospital_fusion
from tasks.settings import DatasetSettings, ModelSettings, PartitionSettings, RetrievalSettings, StrategySettings
from tasks.store import Ref, writing
from tasks.text.normalise import normalise

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "datasets"
DATASETS = {
    "phantom": DatasetSettings(),
    "vqa-rad-osf": DatasetSettings(name="vqa-rad", root=PUBLISHED / "vqa-rad-osf"),
    "vqa-rad": DatasetSettings(name="vqa-rad", root=PUBLISHED / "vqa-rad" / "data_RAD"),
    "slake": DatasetSettings(name="slake", root=PUBLISHED / "slake"),
}
WAYS = {
    "image only": {"image_weight": 1.0},
    "text only": {"image_weight": 0.0},
    "concatenation": {},
    "gated fusion": {"fusion": "gated"},
    "concatenation, re-ranked, fixed": {"rerank": "fixed"},
    "concatenation, re-ranked, learned": {"rerank": "learned"},
    "gated fusion, re-ranked, learned": {"fusion": "gated", "rerank": "learned"},
}
DEPTHS = (1, 5, 10)
SEED = 0
MODEL = choose_model(ModelSettings(device="cpu"))
HEADINGS = ("recall at 1", "at 5", "at 10", "open: at 1", "at 5", "at 10", "same modality", "same organ")


def main(names: Sequence[str], held_out: bool) -> None:
    """Print one table for each dataset and split."""
    for name in names or DATASETS:
        for disjoint in ("none",) if held_out else ("none", "image"):
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                print(f"\n{name}, {'held-out training images' if held_out else SPLITS[disjoint]}", flush=True)
                show(measure(DATASETS[name], disjoint, held_out))


SPLITS = {"none": "published split", "image": "image-disjoint split"}


def measure(dataset: DatasetSettings, disjoint: str, held_out: bool) -> dict[str, list[tuple[Case, list[Case]]]]:
    """By way of comparing: each case asked with the first ten that were found."""
    data = ingest.fn(settings=dataset, content="", seed=SEED)
    findings = audit.fn(cases=data, dataset=data, seed=SEED)
    settings = PartitionSettings(disjoint=disjoint)
    assignment = partition.fn(cases=data, settings=settings, seed=SEED, findings=findings)
    hospitals: list[LibrarySources] = []
    for row in assignment.manifest()["summary"]["hospitals"]:
        common = {"dataset": data, "assignment": assignment, "findings": findings}
        cases = take_cases.fn(hospital=row["hospital"], cases=data, forgotten=[], **common)
        features = take_features.fn(hospital=row["hospital"], cases=cases, model=MODEL)
        cases = ask_training(row["hospital"], cases) if held_out else cases
        hospitals.append(LibrarySources(name=row["hospital"], cases=cases, features=features))
    fusion = train(hospitals)
    return {way: search(hospitals, RetrievalSettings(**changes), fusion) for way, changes in WAYS.items()}  # type: ignore[arg-type]


def ask_training(hospital: str, cases: Ref) -> Ref:
    """The same hospital with a fifth of its training images as its test cases, in place of its own."""
    kept, held_out = split_holdout(read_table(cases.folder / "cases.parquet", Case), 0.2, SEED + 1)
    with writing(f"hospitals/{hospital}", "cases", "held-out") as folder:
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, [*kept, *(replace(case, split="test") for case in held_out)])
        folder.write("copies.parquet", (cases.folder / "copies.parquet").read_bytes())
    return folder.ref


def train(hospitals: Sequence[LibrarySources]) -> Ref:
    """The gated fusion, trained across the hospitals as in a study."""
    fusing = RetrievalSettings().fusing
    width = hospitals[0].features.manifest()["summary"]["width"]
    fusion = initial_gated_fusion.fn(image_width=width, text_width=0, seed=SEED)
    for number in range(1, fusing.fusion_rounds + 1):
        given: dict[str, Any] = {"fusion": fusion, "fusing": fusing, "holdout": 0.1, "seed": SEED}
        updates = [train_hospital_fusion.fn(hospital=each, **given, round_number=number) for each in hospitals]
        names = [each.name for each in hospitals]
        common: dict[str, Any] = {"strategy": StrategySettings(), "hospitals": names, "round_number": number}
        fusion = aggregate_fusion.fn(state=fusion, updates=updates, **common)
    return fusion


def search(
    hospitals: Sequence[LibrarySources], settings: RetrievalSettings, fusion: Ref
) -> list[tuple[Case, list[Case]]]:
    """Every hospital's test cases with what its library gives for them."""
    found: list[tuple[Case, list[Case]]] = []
    for each in hospitals:
        library = build_hospital_library.fn(
            hospital=each,
            settings=settings.library(0.1, SEED),
            fusion=fusion if settings.fusion == "gated" else None,
        )
        cases = {case.id: case for case in read_table(each.cases.folder / "cases.parquet", Case)}
        near: dict[str, list[Case]] = defaultdict(list)
        for neighbour in read_table(library.folder / "neighbours.parquet", Neighbour):
            near[neighbour.case_id].append(cases[neighbour.neighbour_id])
        found += [(case, near[case.id]) for case in cases.values() if case.split == "test"]
    return found


def show(ways: dict[str, list[tuple[Case, list[Case]]]]) -> None:
    """Print rates, of recall at 1 and at 5 with their intervals, and the difference of fusion to concatenation."""
    print(f"{len(next(iter(ways.values())))} cases asked")
    print("| |", " | ".join(HEADINGS), "|")
    print("|---|" + "---|" * len(HEADINGS))
    for way, found in ways.items():
        counts = np.stack([count(case, near) for case, near in found])
        stated = (~np.isnan(counts)).sum(0)
        rates = np.nansum(counts, 0) / np.maximum(stated, 1)
        low, high = interval(counts[:, 0], found)
        print(
            f"| {way} | {rates[0]:.3f} [{low:.3f}, {high:.3f}] |",
            " | ".join(f"{e:.3f}" if n else "not stated" for e, n in zip(rates[1:], stated[1:], strict=True)),
            "|",
        )
    one, other = (np.stack([count(*each) for each in ways[way]]) for way in ("gated fusion", "concatenation"))
    for place, depth in enumerate(DEPTHS):
        change = one[:, place] - other[:, place]
        low, high = interval(change, ways["concatenation"])
        print(f"gated fusion minus concatenation, recall at {depth}: {change.mean():+.3f} [{low:+.3f}, {high:+.3f}]")


def count(case: Case, near: Sequence[Case]) -> NDArray[np.float64]:
    """The columns of `HEADINGS` for one case, nan where it has none: recalls, and shares of the first five."""
    hits = [normalise(each.answer) == normalise(case.answer) for each in near]
    recalls = [float(any(hits[:depth])) for depth in DEPTHS]
    shares = []
    for field in ("modality", "organ"):
        values = [getattr(each, field) for each in near[:5] if getattr(each, field)]
        mine = getattr(case, field)
        shares.append(float(np.mean([value == mine for value in values])) if mine and values else np.nan)
    return np.array([*recalls, *(recalls if case.kind == "open" else [np.nan] * len(DEPTHS)), *shares])


def interval(values: NDArray[np.float64], found: Sequence[tuple[Case, list[Case]]]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the mean over resampled images."""
    images = {image: place for place, image in enumerate(sorted({case.image_id for case, _ in found}))}
    places = np.array([images[case.image_id] for case, _ in found])
    sums, sizes = np.bincount(places, values), np.bincount(places)
    drawn = np.random.default_rng(SEED).integers(0, len(images), (1000, len(images)))
    low, high = np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main([each for each in sys.argv[1:] if not each.startswith("--")], "--held-out" in sys.argv)
