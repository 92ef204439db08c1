"""What a federation starts from: a fresh adapter, one from outside, or that of an earlier run; and what is reused."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.audit.step import audit_start, read_start
from tasks.cases.withdrawn import forgotten_at
from tasks.errors import StudyError
from tasks.federate.step import take_adapter
from tasks.records.federation import ADAPTER_FILE, Dealt, HospitalRefs, SeenBefore
from tasks.records.run_document import RunDocument, StartOfRun
from tasks.settings import ModelChoice, Study
from tasks.store import ROOT, Ref, digest_at, file_digest, find
from tasks.store.provenance import inputs_of, walk
from tasks.store.runs import References, open_run
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")
SHAPE = ("r", "alpha", "targets", "tower_targets", "projector")
"""The settings of `lora` that two adapters must have in common to be one another's start."""


@dataclass(frozen=True)
class Former:
    """A finished run that a study goes on from."""

    name: str
    study: Study
    references: References
    results: RunDocument

    @property
    def hospitals(self) -> Mapping[str, Mapping[str, Any]]:
        """Its hospitals' folders by name."""
        return self.references["hospitals"]


def refuse_no_adapter(study: Study) -> None:
    """Raise StudyError, before anything is done, if `federation.initial_adapter` names no folder of an adapter."""
    place = study.federation.initial_adapter
    if place and not (place / ADAPTER_FILE).is_file():
        raise StudyError(
            f"Expected federation.initial_adapter to be a folder with {ADAPTER_FILE}, as PEFT saves it, found none in "
            f"{place}: name another."
        )


def former_run(study: Study, model: ModelChoice) -> Former | None:
    """The run that `federation.warm_start` names; None if it is off, or if there is no such run yet.

    Raises StudyError if its adapter cannot be the start of this study: of another base, rank or targets, or if there
    is not one adapter for all hospitals.
    """
    link = study.federation.warm_start
    if link == "off" or not (ROOT / link).exists():
        return None
    run = (ROOT / link).resolve()
    earlier, references = open_run(run)
    if not (run / "results.json").exists() or references["adapter"] is None:
        raise StudyError(
            f"Expected a run of `fed-rag run` with one adapter for all hospitals as the start "
            f"(federation.warm_start={link}), found {run.name}, which has none: set federation.warm_start=off."
        )
    found = Former(run.name, earlier, references, json.loads((run / "results.json").read_text(encoding="utf-8")))
    theirs, ours = ({name: getattr(each.lora, name) for name in SHAPE} for each in (earlier, study))
    if found.results["model"]["content"] != model.content:
        raise StudyError(
            f"Expected {run.name}, the start of this study (federation.warm_start={link}), to be of the base "
            f"{model.name}, found another base: set federation.warm_start=off for one night."
        )
    if other := [name for name in SHAPE if theirs[name] != ours[name]]:
        name = other[0]
        raise StudyError(
            f"Expected {run.name}, the start of this study (federation.warm_start={link}), to have "
            f"lora.{name}={ours[name]}, found {theirs[name]}: set federation.warm_start=off for one night, or lora as "
            "it was."
        )
    return found


def seen_before(study: Study, former: Former | None, dataset: Ref) -> SeenBefore | None:
    """The vision features that a study need not compute again; None if there are none.

    Of the same images it is what the former run itself went on from, so that its features are found as they are.
    """
    if former is None or former.study.model != study.model:
        return None
    paths = [path for path in inputs_of(_any(former, "features")) if path.startswith("source/vision/")]
    if not paths:
        return None
    try:
        (seen,) = (find(path).verified() for path in paths)
        *earlier, images = (find(path).verified() for path in inputs_of(seen.path))
    except (OSError, ValueError):  # gone or changed: all images are looked at again
        return None
    if images.only("images.parquet").digest != dataset.only("images.parquet").digest:
        return SeenBefore(features=seen, images=images.only("images.parquet"))
    if not earlier:
        return None
    features, images = earlier
    return SeenBefore(features=features, images=images.only("images.parquet"))


def _any(former: Former, stage: str) -> str:
    """The path of a stage's folder at the first hospital."""
    return str(next(iter(former.hospitals.values()))[stage])


@dataclass(frozen=True)
class Start:
    """The adapter that every hospital starts from, and what results tell of it."""

    adapter: Ref
    told: StartOfRun | None
    """None for a fresh adapter."""


def choose_start(study: Study, model: ModelChoice, former: Former | None, hospitals: Sequence[HospitalRefs]) -> Start:
    """The adapter that the first round starts from; `hospitals` have the fresh one.

    Where no hospital's cases have changed since the former run, it is what that run started from: so nothing is trained
    again. Raises StudyError for an adapter that was trained on test cases, or does not fit.
    """
    outside, fresh = study.federation.initial_adapter, Start(hospitals[0].adapter, None)
    told = former.results.get("start") if former else None
    if former:
        changed = _changed(former, hospitals)
        tell_reused(former, hospitals, changed)
        if changed:
            told = _adapter_of(former)
    if told and told["path"]:
        if withdrawn := _withdrawn(told["path"], hospitals):
            logger.warning("a patient of %s withdrew whom the adapter of %s was trained on", withdrawn, told["run"])
            told = None
        else:
            return _warm(study, model, told, hospitals)
    if outside is None:
        if study.federation.warm_start != "off":
            logger.info("starts from a fresh adapter")
        return fresh
    return _given(study, model, outside)


def tell_reused(former: Former, hospitals: Sequence[HospitalRefs], changed: Sequence[str]) -> None:
    """Say which hospitals have other cases than in the former run, and how many libraries are still right."""
    same = sum(former.hospitals.get(each.name, {}).get("library") == each.library.path for each in hospitals)
    logger.info(
        "since %s: %s; reused: libraries of %d of %d hospitals",
        former.name,
        f"other cases at {', '.join(changed)}" if changed else "no hospital has other cases",
        same,
        len(hospitals),
    )


def tell_features(seen: Ref) -> None:
    """Say of how many images the features were there before, if the study goes on from an earlier run's."""
    summary = seen.manifest()["summary"]
    if "reused" in summary:
        logger.info("reused: features of %d of %s", summary["reused"], counted(summary["images"], "images"))


def _changed(former: Former, hospitals: Sequence[HospitalRefs]) -> list[str]:
    """Hospitals whose cases are not those of the former run."""
    before = {name: digest_at(places["cases"]) for name, places in former.hospitals.items()}
    return [each.name for each in hospitals if before.get(each.name) != each.cases.digest]


def _adapter_of(former: Former) -> StartOfRun:
    """What is told of a former run's adapter as the start."""
    adapter = _whole(str(former.references["adapter"]))
    return {"run": former.name, "folder": None, "path": adapter.path, "adapter": adapter.only(ADAPTER_FILE).digest}


def _withdrawn(path: str, hospitals: Sequence[HospitalRefs]) -> str | None:
    """The first hospital of which a patient withdrew on whom an adapter was trained; None if there is none."""
    for hospital in hospitals:
        if any(path in row["adapters"] for row in forgotten_at(ROOT / "hospitals" / hospital.name)):
            return hospital.name
    return None


def _warm(study: Study, model: ModelChoice, told: StartOfRun, hospitals: Sequence[HospitalRefs]) -> Start:
    """Start from an earlier run's adapter, once it is sure that it has not been trained on a test case."""
    adapter = _whole(str(told["path"]))
    leaked = read_start(audit_start(now=_dealt([hospitals[0].cases.path])[0], before=_trained_on(adapter)))
    if leaked["trained_before"]:
        raise StudyError(
            f"Expected no test case among those that the adapter of {told['run']} was trained on, found "
            f"{leaked['trained_before']} of {leaked['test_cases']}: the scores would be of what it was taught. Set "
            "federation.warm_start=off, or keep each image in the split that it had (a column `split`)."
        )
    taken = take_adapter(model=model, lora=study.lora, content=told["adapter"], former=adapter)
    logger.info("starts from the adapter of %s (sha256 %s)", told["run"], told["adapter"][:12])
    return Start(taken, told)


def _whole(path: str) -> Ref:
    """The folder of an earlier adapter. Raises StudyError if it is gone, or has changed."""
    try:
        return find(path).verified()
    except (OSError, ValueError):
        raise StudyError(
            f"Expected the adapter {ROOT / path} as it was left, found it gone or changed: set "
            "federation.warm_start=off for one night."
        ) from None


def _trained_on(adapter: Ref) -> list[Dealt]:
    """All data that an adapter was trained on, that of the adapters before it among them."""
    cases = [path for path in walk([adapter]) if path.startswith("hospitals/") and path.split("/")[-2] == "cases"]
    return _dealt(cases)


def _dealt(cases: Sequence[str]) -> list[Dealt]:
    """The data from which hospitals took their cases, each once; `cases` are paths of such folders."""
    found: dict[tuple[str, ...], Dealt] = {}
    for path in cases:
        by_stage = {each.split("/")[1]: find(each) for each in inputs_of(path)}
        dataset, assignment = by_stage["ingest"], by_stage["partition"]
        dealt = Dealt(cases=by_stage.get("questions", dataset), dataset=dataset, assignment=assignment)
        found.setdefault((dealt.cases.path, dataset.path, assignment.path), dealt)
    return [found[key] for key in sorted(found)]


def _given(study: Study, model: ModelChoice, place: Path) -> Start:
    """Start from an adapter that was trained elsewhere, on data that is not known here."""
    adapter, told = given_adapter(study, model, place)
    logger.info("starts from the adapter in %s (sha256 %s)", place, told["adapter"][:12])
    return Start(adapter, told)


def given_adapter(study: Study, model: ModelChoice, place: Path) -> tuple[Ref, StartOfRun]:
    """The adapter in a folder from outside, and what is told of it. Raises StudyError if it does not fit."""
    content = file_digest(place / ADAPTER_FILE)
    taken = take_adapter(model=model, lora=study.lora, content=content, place=str(place))
    return taken, {"run": None, "folder": place.name, "path": None, "adapter": content}
