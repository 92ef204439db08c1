"""Writes a finished run: its settings, results and references in one folder."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.losses import round_losses, write_losses
from tasks.audit.control import withhold
from tasks.audit.step import read_audit, read_control
from tasks.cases.small_groups import withhold_small, withhold_small_cells, withhold_small_counts
from tasks.federate.participation import FILE as PARTICIPATION
from tasks.federate.participation import record
from tasks.ingest.datasets import DATASETS
from tasks.records.federation import HospitalRefs
from tasks.records.run_document import StartOfRun
from tasks.records.shared_documents import SharedDocuments
from tasks.report.abstention import abstention
from tasks.report.data import left_out
from tasks.report.failures import failure_table
from tasks.report.held_back import held_back
from tasks.report.intervals import details
from tasks.report.personal import personal_gain
from tasks.report.perturbation import reliance_table
from tasks.report.privacy import privacy_of_run
from tasks.report.results import About, Measured, assemble, markdown
from tasks.report.saliency import share_table
from tasks.report.seen import seen_of_run
from tasks.score.image_sums import read_sums
from tasks.settings import Study
from tasks.store import Ref, find, peak_memory, writing
from tasks.store.provenance import walk
from tasks.store.runs import References, new_name
from tasks.text.vocabulary import MODALITIES, ORGANS, known

MADE = "made into a test split"
"""The end of an ingested dataset's note that its test split was made, not published."""
COUNTED = ("dataset", "split", "kind", "modality", "organ", "language", "captions_by_split")
"""Properties by which the dataset's cases or captions are counted."""
NOT_STATED = "not stated"
"""The name of an absent value in the dataset's counts."""


@dataclass(frozen=True)
class SharedRefs:
    """The folders that the hospitals of a study have shared, in the order of the hospitals."""

    copies: Ref
    """Images that pairs of hospitals share, found by the audit of a simulation."""
    losses: Sequence[Ref]
    """Held-out losses, by round."""
    scores: Sequence[Ref]
    control: Ref | None = None
    """The negative control of the audit's near-duplicates, if there is one."""
    reliance: Sequence[Ref] = ()
    """Scores with perturbed prompts; this and the fields below are empty if not measured."""
    failures: Sequence[Ref] = ()
    """Counts of the answers' failure modes."""
    shares: Sequence[Ref] = ()
    """Mean shares of the prompt's parts in the explained answers."""
    abstention: Sequence[Ref] = ()
    """Counts of answers that would be withheld."""
    seen: Sequence[Ref] = ()
    """Counts of test images that the base was trained on; empty if it has no record of them."""
    gains: Sequence[Ref] = ()
    """Right answers by image with the adapter for all and with the personal one; empty if there is none."""
    privacy: Sequence[Ref] = ()
    """What was spent of each privacy budget; empty without differential privacy."""

    def read(self) -> SharedDocuments:
        """Read the documents that the results are computed from."""
        return SharedDocuments(
            scores=_documents(self.scores, "scores.json"),
            reliance=_documents(self.reliance, "scores.json"),
            failures=_documents(self.failures, "failures.json"),
            shares=_documents(self.shares, "shares.json"),
            abstention=_documents(self.abstention, "abstention.json"),
            seen=_documents(self.seen, "seen.json"),
            gains=_documents(self.gains, "gain.json"),
            privacy=_documents(self.privacy, "privacy.json"),
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
    start: StartOfRun | None = None,
) -> Path:
    """Write `runs/<run>/` and return it; `point_latest` links to it later, when its pages are written too.

    Args:
        study: the study's settings.
        model: identifies the base's content: a folder's digest, or a hub model's commit.
        hospitals: the hospitals with their final adapters.
        kept: other folders of the hospitals by name, each in the order of the hospitals.
        rounds: one row per round.
        shared: the folders that the hospitals share at the end of the study.
        start: what the first round started from; None for a fresh adapter.
    """
    run = new_name()
    documents = shared.read()
    ends = _ends(hospitals, kept, shared)
    about = _about(study, run, model, walk(ends), shared.control, start)
    results = assemble(documents.scores, rounds, _measured(study, documents, shared.scores), about)
    with writing("", "runs", run) as folder:
        folder.inputs = list(dict.fromkeys(ref.path for ref in ends))
        folder.write_json("settings.json", about.settings)
        folder.write_json("results.json", results)
        folder.write("results.md", markdown(results).encode())
        folder.write_json("references.json", _references(hospitals, kept))
        folder.write_json(PARTICIPATION, record(rounds))
        write_losses(folder, round_losses(rounds))
    return folder.ref.folder


def _ends(
    hospitals: Sequence[HospitalRefs], kept: Mapping[str, Sequence[Ref | list[Ref]]], shared: SharedRefs
) -> list[Ref]:
    """The final folders of the run; walking their inputs finds all others."""
    held = [ref for each in hospitals for ref in (each.cases, each.features, each.library, each.adapter)]
    others = [ref for refs in kept.values() for each in refs for ref in (each if isinstance(each, list) else [each])]
    shared_folders = [
        *shared.scores,
        *shared.reliance,
        *shared.abstention,
        *shared.failures,
        *shared.shares,
        *shared.seen,
        *shared.gains,
        *shared.privacy,
    ]
    control = [shared.control] if shared.control else []
    # The control last: the first ingested dataset on the way is the study's own.
    return [shared.copies, *held, *shared.losses, *others, *shared_folders, *control]


def _measured(study: Study, shared: SharedDocuments, scored: Sequence[Ref]) -> Measured:
    """Combine the hospitals' documents, and the sums by image that come with their scores."""
    sums = [read_sums(ref.folder / "sums.parquet") for ref in scored]
    coverage, name = study.evaluation.coverage, study.configuration
    return Measured(
        details=details(list(zip(shared.scores, sums, strict=True)), study.seed),
        abstention=abstention(shared.abstention, coverage, study.seed, study.retrieval.most > 0),
        reliance=reliance_table(name, shared.reliance),
        failures=failure_table(name, shared.failures),
        saliency=share_table(name, shared.shares),
        personal=personal_gain(study.personal_configuration, shared.gains, study.seed),
        withheld=held_back(study.evaluation.min_cell, shared),
        seen=seen_of_run(shared.seen),
        privacy=privacy_of_run(shared.privacy),
    )


def _about(
    study: Study,
    run: str,
    model: str,
    made: Mapping[str, Mapping[str, Any]],
    control: Ref | None,
    start: StartOfRun | None,
) -> About:
    """The run's description, from its settings and from the manifests of all its folders."""
    dataset, findings, assignment = (
        find(next(path for path in made if path.startswith(f"source/{stage}/")))
        for stage in ("ingest", "audit", "partition")
    )
    source, assigned, least = dataset_summary(dataset), assignment.manifest()["summary"], study.evaluation.min_cell
    return About(
        run=run,
        trained=(study.configuration,),
        dataset=dataset_counts(source, least),
        partition={"scheme": assigned["scheme"], "hospitals": withhold_small_cells(assigned["hospitals"], least)},
        split=_split(study, assigned["split"], source, findings) | _control(control, least),
        model={"name": study.model.name, "revision": study.model.revision, "content": model},
        start=start,
        settings=study.model_dump(mode="json"),
        timings_s=_timings(made),
        peak_memory_bytes=max(peak_memory(), *(each["peak_memory_bytes"] for each in made.values())),
    )


def dataset_counts(summary: Mapping[str, Any], least: int) -> dict[str, Any]:
    """The counts of the dataset, with values mapped to a public vocabulary and small counts withheld."""
    result = dict(summary)
    for name, vocabulary in (("modality", MODALITIES), ("organ", ORGANS)):
        counts: Counter[str] = Counter()
        for value, count in summary[name].items():
            counts[value if value == NOT_STATED else str(known(value, vocabulary))] += count
        result[name] = counts
    return result | {name: withhold_small_counts(result[name], least) for name in COUNTED}


def dataset_summary(dataset: Ref) -> dict[str, Any]:
    """The counts of an ingested dataset, including the rows that were left out, by reason."""
    summary = dataset.manifest()["summary"]
    rejected = json.loads((dataset.folder / "rejected.json").read_text(encoding="utf-8"))
    return summary | {"left_out": left_out(summary["notes"], [each["reason"] for each in rejected])}


def _split(study: Study, split: Mapping[str, Any], source: Mapping[str, Any], findings: Ref) -> dict[str, Any]:
    """The split that scores were measured on: its origin, and its leakage as published, before cases were moved."""
    least = study.evaluation.min_cell
    return {
        **split,
        "moved_cases": withhold_small(split["moved_cases"], least),
        "origins": sorted({_origin(name, source["notes"]) for name, _ in study.dataset.sources}),
        "audited_test_cases": read_audit(findings)["train_test"]["test_cases"],
        "published_split_shares": {
            name: withhold_small(n, least) for name, n in findings.manifest()["summary"].items()
        },
    }


def _control(control: Ref | None, least: int) -> dict[str, Any]:
    """The negative control of the audit's near-duplicates, with small counts withheld; null if there is none."""
    found = read_control(control)
    return {"control": withhold(found, least) if found else None}


def _origin(name: str, notes: Iterable[str]) -> str:
    """A split's origin: `drawn`, `made` or `given`. With several datasets, each note begins with a dataset's name."""
    if DATASETS[name].drawn:
        return "drawn"
    unprefixed = [note.removeprefix(f"{name}: ") for note in notes]
    return "made" if any(note.endswith(MADE) and ":" not in note for note in unprefixed) else "given"


def _timings(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage, as measured when each stage ran, not when it was found in the cache."""
    seconds: dict[str, float] = {}
    for path, manifest in manifests.items():
        stage = path.split("/")[-2]
        seconds[stage] = round(seconds.get(stage, 0.0) + manifest["seconds"], 3)
    return seconds


def _references(hospitals: Sequence[HospitalRefs], kept: Mapping[str, Sequence[Ref | list[Ref]]]) -> References:
    """The paths of all folders, for `references.json`."""
    places: dict[str, dict[str, Any]] = {}
    for number, hospital in enumerate(hospitals):
        folders = {name: getattr(hospital, name).path for name in ("cases", "features", "library", "adapter")}
        others = {name: refs[number] for name, refs in kept.items()}
        places[hospital.name] = folders | {
            name: [ref.path for ref in each] if isinstance(each, list) else each.path for name, each in others.items()
        }
    adapters = {hospital.adapter.path for hospital in hospitals}
    return {"adapter": adapters.pop() if len(adapters) == 1 else None, "hospitals": places}
