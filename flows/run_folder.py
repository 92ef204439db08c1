"""A finished run: its settings, results and references in one folder, and `latest` pointing there."""

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.losses import round_losses, write_losses
from tasks.audit.step import read_audit
from tasks.cases.small_groups import tell, tell_columns, tell_counts
from tasks.ingest.datasets import DATASETS
from tasks.records.federation import HospitalRefs
from tasks.report.abstention import abstention
from tasks.report.data import left_out
from tasks.report.failures import failure_table
from tasks.report.held_back import held_back
from tasks.report.intervals import details
from tasks.report.perturbation import reliance_table
from tasks.report.results import assemble, markdown
from tasks.report.saliency import share_table
from tasks.score.image_sums import read_sums
from tasks.settings import Study
from tasks.store import Ref, peak_memory, writing
from tasks.text.vocabulary import MODALITIES, ORGANS, known

MADE = "made into a test split"
"""The end of an ingested dataset's note on a split that it came without."""
FAILED, SHARES, ABSTAINED = "failures.json", "shares.json", "abstention.json"
COUNTED = ("dataset", "split", "kind", "modality", "organ", "language", "captions_by_split")
"""Counts of the dataset by what its cases, or captions, are."""
NOT_STATED = "not stated"
"""What the dataset's counts call a value that is absent."""


def write_run(
    study: Study,
    model: str,
    hospitals: Sequence[HospitalRefs],
    kept: Mapping[str, Sequence[Ref | list[Ref]]],
    rounds: Sequence[Mapping[str, Any]],
    scored: Sequence[Ref],
    made: Sequence[Ref],
    counted: Sequence[Ref] = (),
    withheld: Sequence[Ref] = (),
    failing: Sequence[Ref] = (),
    shares: Sequence[Ref] = (),
) -> Path:
    """Write `runs/<run>/`, to which `point_latest` points once its pages are there too.

    Args:
        study: its settings.
        model: what tells the base's content, a folder's digest or a hub model's commit.
        hospitals: with their final adapters.
        kept: what else each hospital holds or has shared, by name, in their order.
        rounds: one row a round.
        scored: what each hospital shared of its scores.
        made: every folder that went into the run, for its times and memory.
        counted: what each hospital shared of its scores with altered prompts.
        withheld: what each hospital shared of answers that it would withhold; none where none are.
        failing: what each hospital shared of its answers' failure modes.
        shares: what each hospital shared of the answers that it explained.
    """
    settings = study.model_dump(mode="json")
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"  # no other's, though it be the same study
    manifests = {ref.path: ref.manifest() for ref in [*made, *scored, *counted]}
    source = told_of(next(ref for ref in made if ref.path.startswith("source/ingest/")))
    dealt = next(manifest for path, manifest in manifests.items() if path.startswith("source/partition"))
    least = study.evaluation.min_cell
    failures, explained = ([_read(ref, name) for ref in refs] for refs, name in ((failing, FAILED), (shares, SHARES)))
    results = assemble(
        [_scores(ref) for ref in scored],
        rounds,
        {
            "run": run,
            "trained": (study.configuration,),
            "abstention": _abstention(withheld, study),
            "details": details([(_scores(ref), read_sums(ref.folder / "sums.parquet")) for ref in scored], study.seed),
            "saliency": share_table(study.configuration, explained),
            "reliance": reliance_table(study.configuration, [_scores(ref) for ref in counted]),
            "failures": failure_table(study.configuration, failures),
            "withheld": held_back(
                least,
                [_scores(ref) for ref in scored],
                [_scores(ref) for ref in counted],
                failures,
                explained,
                [_read(ref, ABSTAINED) for ref in withheld],
            ),
            "model": {"name": study.model.name, "revision": study.model.revision, "content": model},
            "settings": settings,
            "dataset": dataset_counts(source, least),
            "partition": {
                "scheme": dealt["summary"]["scheme"],
                "hospitals": tell_columns(dealt["summary"]["hospitals"], least),
            },
            "split": _split(study, dealt["summary"]["split"], source, made),
            "timings_s": _timings(manifests),
            "peak_memory_bytes": max(peak_memory(), *(each["peak_memory_bytes"] for each in manifests.values())),
        },
    )
    with writing("", "runs", run) as folder:
        folder.write_json("settings.json", settings)
        folder.write_json("results.json", results)
        folder.write("results.md", markdown(results).encode())
        folder.write_json("references.json", _references(hospitals, kept))
        write_losses(folder, round_losses(rounds))
    return folder.ref.folder


def _scores(ref: Ref) -> dict[str, Any]:
    return _read(ref, "scores.json")


def _read(ref: Ref, name: str) -> dict[str, Any]:
    return json.loads((ref.folder / name).read_text(encoding="utf-8"))


def _abstention(withheld: Sequence[Ref], study: Study) -> dict[str, Any] | None:
    shared = [_read(ref, ABSTAINED) for ref in withheld]
    return abstention(shared, study.evaluation.coverage, study.seed, study.retrieval.k > 0) if shared else None


def dataset_counts(summary: Mapping[str, Any], least: int) -> dict[str, Any]:
    """The counts of the dataset, in words that may be told, and none of few cases."""
    told = dict(summary)
    for name, vocabulary in (("modality", MODALITIES), ("organ", ORGANS)):
        counts: Counter[str] = Counter()
        for value, count in summary[name].items():
            counts[value if value == NOT_STATED else str(known(value, vocabulary))] += count
        told[name] = counts
    return told | {name: tell_counts(told[name], least) for name in COUNTED}


def told_of(dataset: Ref) -> dict[str, Any]:
    """The counts of an ingested dataset, those of the rows that are left out among them, by what they are."""
    summary = dataset.manifest()["summary"]
    rejected = json.loads((dataset.folder / "rejected.json").read_text(encoding="utf-8"))
    return summary | {"left_out": left_out(summary["notes"], [each["reason"] for each in rejected])}


def _split(study: Study, split: Mapping[str, Any], source: Mapping[str, Any], made: Sequence[Ref]) -> dict[str, Any]:
    """Which split the scores were measured on, where it is from, and what it shared before anything was moved."""
    found = next(ref for ref in made if ref.path.startswith("source/audit/"))
    least = study.evaluation.min_cell
    return {
        **split,
        "origins": sorted({_origin(name, source["notes"]) for name, _ in study.dataset.sources}),
        "audited_test_cases": read_audit(found)["train_test"]["test_cases"],
        "published_split_shares": {name: tell(n, least) for name, n in found.manifest()["summary"].items()},
    }


def _origin(name: str, notes: Iterable[str]) -> str:
    """Where a dataset's split is from; notes on several datasets begin with the name of one."""
    if DATASETS[name].drawn:
        return "drawn"
    own = [note.removeprefix(f"{name}: ") for note in notes]
    return "made" if any(note.endswith(MADE) and ":" not in note for note in own) else "given"


def _timings(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage, each measured when the stage really ran."""
    seconds: dict[str, float] = {}
    for path, manifest in manifests.items():
        stage = path.split("/")[-2]
        seconds[stage] = round(seconds.get(stage, 0.0) + manifest["seconds"], 3)
    return seconds


def _references(hospitals: Sequence[HospitalRefs], kept: Mapping[str, Sequence[Ref | list[Ref]]]) -> dict[str, Any]:
    """Where everything is, relative to the artifacts folder; `adapter` is null where the hospitals trained alone."""
    places = {}
    for number, hospital in enumerate(hospitals):
        own = {name: getattr(hospital, name).path for name in ("cases", "features", "library", "adapter")}
        others = {name: refs[number] for name, refs in kept.items()}
        places[hospital.name] = own | {
            name: [ref.path for ref in each] if isinstance(each, list) else each.path for name, each in others.items()
        }
    adapters = {hospital.adapter.path for hospital in hospitals}
    return {"adapter": adapters.pop() if len(adapters) == 1 else None, "hospitals": places}
