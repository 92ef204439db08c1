"""Hospitals of a finished study, opened for benchmarks that change what stands in their libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.base import find
from flows.cli.settings_file import load_study
from flows.fed_rag import fed_rag
from tasks.answer.predict import answer_prompts
from tasks.engine.hospital import Hospital, open_hospital
from tasks.engine.identity import choose_model
from tasks.engine.vision import Features, gather_features
from tasks.records import Case
from tasks.records.federation import HospitalRefs
from tasks.score.score import score_row
from tasks.settings import ContextSettings, ModelChoice, Study
from tasks.store import ROOT
from tasks.store.runs import open_run

ASKED = 60
"""Test cases of each hospital that are asked."""


@dataclass(frozen=True)
class Ward:
    """A hospital's library, and the cases that are asked there."""

    own: Hospital
    asked: list[Case]

    @property
    def library(self) -> list[Case]:
        """Its training cases."""
        return [case for case in self.own.cases if case.split == "train"]


@dataclass(frozen=True)
class Trained:
    """A finished study: its settings, adapter and hospitals."""

    study: Study
    adapter: Path
    wards: list[Ward]

    @property
    def model(self) -> ModelChoice:
        """Its base."""
        return choose_model(self.study.model)

    def answers(self, wards: Sequence[Ward], **shown: object) -> list[tuple[Case, str]]:
        """What its adapter answers, with these changes to how cases are shown."""
        how = ContextSettings.model_validate(self.study.retrieval.context.model_dump() | shown)
        given: list[tuple[Case, str]] = []
        for ward in wards:
            prompts = ward.own.prompts(ward.asked, how)
            plain = (self.model, self.study.lora, self.study.evaluation.answering, "attacks")
            told = answer_prompts(ward.own, prompts, self.adapter, *plain)
            given += [(case, answer.text) for case, answer in zip(ward.asked, told, strict=True)]
        return given


def train(settings: Sequence[str]) -> Trained:
    """Run a study, or find it."""
    study, references = open_run(Path(fed_rag(load_study(None, tuple(settings)))))
    wards = []
    for name, places in references["hospitals"].items():
        own = open_hospital(HospitalRefs.at(name, places))
        wards.append(Ward(own, [case for case in own.cases if case.split == "test"][:ASKED]))
    return Trained(study, ROOT / references["adapter"], wards)


def insert(ward: Ward, entries: Sequence[Case], seen: Features) -> Ward:
    """The ward with more entries in its library, whose features are `seen`."""
    cases = [*ward.own.cases, *entries]
    own_images = {case.image_id for case in ward.own.cases}
    places = {image: (ward.own.features, image) for image in own_images}
    features = gather_features(places | {entry.image_id: (seen, entry.image_id) for entry in entries})
    library = [case for case in cases if case.split == "train"]
    neighbours = find(features, library, [*library, *ward.asked])
    return Ward(replace(ward.own, cases=cases, neighbours=neighbours, features=features), ward.asked)


def told(given: Sequence[tuple[Case, str]], payload: Mapping[str, str]) -> str:
    """Accuracy by kind, and how often the attacker's answer is given where it is wrong."""
    cells = []
    for kind in ("closed", "open"):
        rows = [(case, text) for case, text in given if case.kind == kind]
        right = sum(score_row(text, case.answer, case.kind, case.options).correct for case, text in rows)
        wrong = [text for case, text in rows if case.answer != payload[kind]]
        cells += [f"{right / len(rows):.3f}", f"{sum(text == payload[kind] for text in wrong)} of {len(wrong)}"]
    return " | ".join(cells)
