"""Hospitals of a finished study, opened for benchmarks that change what stands in their libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from benchmarks.base import find
from flows.cli.settings_file import load_study
from flows.fed_rag import fed_rag
from tasks.answer.predict import answer_prompts
from tasks.engine.hospital import Hospital, open_hospital
from tasks.engine.identity import choose_model
from tasks.engine.vision import Features, gather_features
from tasks.records import Case, Kind
from tasks.records.federation import HospitalRefs
from tasks.score.score import score_row
from tasks.settings import ContextSettings, ModelChoice, Study
from tasks.store import ROOT
from tasks.store.runs import open_run

MOST = 60
"""Test cases of each hospital that are asked."""


@dataclass(frozen=True)
class Ward:
    """A hospital's library, and the cases that are asked there."""

    hospital: Hospital
    test: list[Case]

    @property
    def library(self) -> list[Case]:
        """Its training cases."""
        return [case for case in self.hospital.cases if case.split == "train"]


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

    def answers(self, wards: Sequence[Ward], **changes: object) -> list[tuple[Case, str]]:
        """What its adapter answers, with these changes to how cases are shown."""
        how = ContextSettings.model_validate(self.study.retrieval.context.model_dump() | changes)
        given: list[tuple[Case, str]] = []
        for ward in wards:
            prompts = ward.hospital.prompts(ward.test, how)
            plain = (self.model, self.study.lora, self.study.evaluation.answering, "attacks")
            replies = answer_prompts(ward.hospital, prompts, self.adapter, *plain)
            given += [(case, answer.text) for case, answer in zip(ward.test, replies, strict=True)]
        return given


def train(settings: Sequence[str]) -> Trained:
    """Run a study, or find it."""
    study, references = open_run(Path(fed_rag(load_study(None, tuple(settings)))))
    wards = []
    for name, places in references["hospitals"].items():
        data = open_hospital(HospitalRefs.at(name, places))
        wards.append(Ward(data, [case for case in data.cases if case.split == "test"][:MOST]))
    assert references["adapter"], "with federation.strategy=none there is no adapter for all"
    return Trained(study, ROOT / references["adapter"], wards)


def insert(ward: Ward, entries: Sequence[Case], seen: Features) -> Ward:
    """The ward with more entries in its library, whose features are `seen`."""
    cases = [*ward.hospital.cases, *entries]
    images = {case.image_id for case in ward.hospital.cases}
    places = {image: (ward.hospital.features, image) for image in images}
    features = gather_features(places | {entry.image_id: (seen, entry.image_id) for entry in entries})
    library = [case for case in cases if case.split == "train"]
    neighbours = find(features, library, [*library, *ward.test])
    return Ward(replace(ward.hospital, cases=cases, neighbours=neighbours, features=features), ward.test)


def accuracy_cells(given: Sequence[tuple[Case, str]], payload: Mapping[Kind, str]) -> str:
    """Accuracy by kind, and how often the attacker's answer is given where it is wrong."""
    cells, kinds = list[str](), get_args(Kind)
    for kind in kinds:
        rows = [(case, text) for case, text in given if case.kind == kind]
        right = sum(score_row(text, case.answer, case.kind, case.options).correct for case, text in rows)
        wrong = [text for case, text in rows if case.answer != payload[kind]]
        cells += [f"{right / len(rows):.3f}", f"{sum(text == payload[kind] for text in wrong)} of {len(wrong)}"]
    return " | ".join(cells)
