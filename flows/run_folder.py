"""A finished run: its settings, results and references in one folder, and `latest` pointing there."""

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.losses import round_losses, write_losses
from tasks.audit.step import read_audit
from tasks.cases.small_groups import tell, tell_columns, tell_counts
from tasks.ingest.datasets import DATASETS
from tasks.records.federation import HospitalRefs
from tasks.records.shared_documents import SharedDocuments
from tasks.report.abstention import abstention
from tasks.report.data import left_out
from tasks.report.failures import failure_table
from tasks.report.held_back import held_back
from tasks.report.intervals import details
from tasks.report.perturbation import reliance_table
from tasks.report.results import About, Measured, assemble, markdown
from tasks.report.saliency import share_table
from tasks.score.image_sums import read_sums
from tasks.settings import Study
from tasks.store import Ref, find, peak_memory, writing
from tasks.store.provenance import walk
from tasks.text.vocabulary import MODALITIES, ORGANS, known

MADE = "made into a test split"
"""The end of an ingested dataset's note on a split that it came without."""
COUNTED = ("dataset", "split", "kind", "modality", "organ", "language", "captions_by_split")
"""Counts of the dataset by what its cases, or captions, are."""
NOT_STATED = "not stated"
"""What the dataset's counts call a value that is absent."""


@dataclass(frozen=True)
class SharedRefs:
    """What the hospitals of a study have shared: folders, in the hospitals' order."""

    copies: Ref
    """Of images between hospitals, as the audit of a simulation finds them."""
    losses: Sequence[Ref]
    """On held-out cases, by round."""
    scores: Sequence[Ref]
    reliance: Sequence[Ref] = ()
    """Scores with altered prompts; none, as below, where that was not measured."""
    failures: Sequence[Ref] = ()
    """Counts of the answers' failure modes."""
    shares: Sequence[Ref] = ()
    """Mean shares of the prompt's parts in the answers that were explained."""
    abstention: Sequence[Ref] = ()
    """Counts of answers that would be withheld."""

    def read(self) -> SharedDocuments:
        """The documents that results are made of."""
        return SharedDocuments(
            scores=_documents(self.scores, "scores.json"),
            reliance=_documents(self.reliance, "scores.json"),
            failures=_documents(self.failures, "failures.json"),
            shares=_documents(self.shares, "shares.json"),
            abstention=_documents(self.abstention, "abstention.json"),
        )


def _documents(refs: Sequence[Ref], name: str) -> list[Any]:
    return [json.loads((ref.folder / name).read_text(encoding="utf-8")) for ref in refs]


def write_run(
    study: Study,
    model: str,
    hospitals: Sequence[HospitalRefs],
    kept: Mapping[str, Sequence[Ref | list[Ref]]],
    rounds: Sequence[Mapping[str, Any]],
    shared: SharedRefs,
) -> Path:
    """Write `runs/<run>/`, to which `point_latest` points once its pages are there too.

    Args:
        study: its settings.
        model: what tells the base's content, a folder's digest or a hub model's commit.
        hospitals: with their final adapters.
        kept: what else each hospital holds or has shared, by name, in their order.
        rounds: one row a round.
        shared: what leaves the hospitals at the study's end.
    """
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"  # no other's, though it be the same study
    documents = shared.read()
    about = _about(study, run, model, walk(_ends(hospitals, kept, shared)))
    results = assemble(documents.scores, rounds, _measured(study, documents, shared.scores), about)
    with writing("", "runs", run) as folder:
        folder.write_json("settings.json", about.settings)
        folder.write_json("results.json", results)
        folder.write("results.md", markdown(results).encode())
        folder.write_json("references.json", _references(hospitals, kept))
        write_losses(folder, round_losses(rounds))
    return folder.ref.folder


def _ends(
    hospitals: Sequence[HospitalRefs], kept: Mapping[str, Sequence[Ref | list[Ref]]], shared: SharedRefs
) -> list[Ref]:
    """All that the run ends in; what this was made from is the rest of it."""
    held = [ref for each in hospitals for ref in (each.cases, each.features, each.library, each.adapter)]
    others = [ref for refs in kept.values() for each in refs for ref in (each if isinstance(each, list) else [each])]
    told = [*shared.scores, *shared.reliance, *shared.abstention, *shared.failures, *shared.shares]
    return [shared.copies, *held, *shared.losses, *others, *told]


def _measured(study: Study, shared: SharedDocuments, scored: Sequence[Ref]) -> Measured:
    """What the hospitals' documents, and the sums beside their scores, say together."""
    sums = [read_sums(ref.folder / "sums.parquet") for ref in scored]
    asked, name = study.evaluation.coverage, study.configuration
    return Measured(
        details=details(list(zip(shared.scores, sums, strict=True)), study.seed),
        abstention=abstention(shared.abstention, asked, study.seed, study.retrieval.k > 0),
        reliance=reliance_table(name, shared.reliance),
        failures=failure_table(name, shared.failures),
        saliency=share_table(name, shared.shares),
        withheld=held_back(study.evaluation.min_cell, shared),
    )


def _about(study: Study, run: str, model: str, made: Mapping[str, Mapping[str, Any]]) -> About:
    """What the settings, and the manifests of all that went into the run, say of it."""
    dataset, findings, assignment = (
        find(next(path for path in made if path.startswith(f"source/{stage}/")))
        for stage in ("ingest", "audit", "partition")
    )
    source, dealt, least = told_of(dataset), assignment.manifest()["summary"], study.evaluation.min_cell
    return About(
        run=run,
        trained=(study.configuration,),
        dataset=dataset_counts(source, least),
        partition={"scheme": dealt["scheme"], "hospitals": tell_columns(dealt["hospitals"], least)},
        split=_split(study, dealt["split"], source, findings),
        model={"name": study.model.name, "revision": study.model.revision, "content": model},
        settings=study.model_dump(mode="json"),
        timings_s=_timings(made),
        peak_memory_bytes=max(peak_memory(), *(each["peak_memory_bytes"] for each in made.values())),
    )


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


def _split(study: Study, split: Mapping[str, Any], source: Mapping[str, Any], findings: Ref) -> dict[str, Any]:
    """Which split the scores were measured on, where it is from, and what it shared before anything was moved."""
    least = study.evaluation.min_cell
    return {
        **split,
        "origins": sorted({_origin(name, source["notes"]) for name, _ in study.dataset.sources}),
        "audited_test_cases": read_audit(findings)["train_test"]["test_cases"],
        "published_split_shares": {name: tell(n, least) for name, n in findings.manifest()["summary"].items()},
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
