"""Falsified updates as folders that go through the door, and altered copies of a hospital's cases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from tasks.attack.cases import TARGET
from tasks.attack.step import alter_cases, falsify_update
from tasks.attack.updates import ATTACKS, attack
from tasks.errors import StudyError
from tasks.federate.step import aggregate
from tasks.ingest import phantom
from tasks.records import Case, Image, UpdateCounts, read_images, read_table, write_table
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, read_counts, write_counts
from tasks.settings import LocalSteps, StrategySettings
from tasks.store import Ref, derived_seed, writing

NAMES = [f"hospital-{n}" for n in range(8)]
BAD = NAMES[-2:]
SHAPES = {"base_model.model.q.lora_A.weight": (2, 5), "base_model.model.q.lora_B.weight": (4, 2)}

ASKED = LocalSteps(epochs=2, batch_size=25, by_image=False)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def adapter(name: str, seed: int, scale: float, hospital: str = "") -> Ref:
    """A folder with an adapter; of a hospital, an update."""
    rng = np.random.default_rng(seed)
    tensors = {key: torch.tensor(scale * rng.normal(size=shape), dtype=torch.float32) for key, shape in SHAPES.items()}
    with writing("shared", "update" if hospital else "adapter", name) as folder:
        folder.write(ADAPTER_FILE, save(tensors))
        folder.write_json(CONFIG_FILE, {"r": 2, "lora_alpha": 4})
        if hospital:
            write_counts(folder, "", UpdateCounts(hospital, 1, 50, 0.7, 4, "base"))
    return folder.ref


def round_of() -> tuple[Ref, dict[str, Ref]]:
    """A start and all hospitals' updates, whose steps have much in common."""
    return adapter("start", 0, 1.0), {name: adapter(name, 1 + n // 4, 1.0, name) for n, name in enumerate(NAMES)}


def falsified(kind: str, start: Ref, sent: dict[str, Ref]) -> dict[str, Ref]:
    """What reaches the coordinator."""
    told: dict[str, Any] = {"attackers": BAD, "start": start, "round_number": 1, "seed": 3, "asked": ASKED}
    told |= {"own": [sent[name] for name in BAD], "honest": [ref for name, ref in sent.items() if name not in BAD]}
    return sent | {name: falsify_update.fn(hospital=name, attack=kind, **told) for name in BAD}


def step(ref: Ref, start: Ref) -> np.ndarray:
    found, begun = load_file(ref.folder / ADAPTER_FILE), load_file(start.folder / ADAPTER_FILE)
    return np.concatenate([(found[name].double() - begun[name].double()).numpy().ravel() for name in sorted(SHAPES)])


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_false_update_is_the_attackers_step_from_the_rounds_start_and_else_as_trained(kind: str) -> None:
    start, sent = round_of()
    own, honest = ([step(sent[name], start) for name in some] for some in (BAD, NAMES[:-2]))
    meant = attack(kind, own, honest, derived_seed(3, "attack", 1))
    found = falsified(kind, start, sent)
    for name, row in zip(BAD, meant, strict=True):
        np.testing.assert_allclose(step(found[name], start), row, atol=1e-5)
        assert (found[name].folder / CONFIG_FILE).read_bytes() == (sent[name].folder / CONFIG_FILE).read_bytes()
        counts, before = (read_counts(ref.folder) for ref in (found[name], sent[name]))
        assert counts.samples == (50_000_000 if kind == "forged-counts" else 50)
        assert counts.steps == (2 * 50_000_000 // 25 if kind == "forged-counts" else 4)
        assert (counts.hospital, counts.loss) == (before.hospital, before.loss)
    assert {name: found[name] for name in NAMES[:-2]} == {name: sent[name] for name in NAMES[:-2]}


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_door_turns_away_nan_alone(kind: str) -> None:
    """The other attacks stay within what it lets in, so that strategies have to bear them."""
    start, sent = round_of()
    updates = list(falsified(kind, start, sent).values())
    told = {"state": start, "hospitals": NAMES, "updates": updates, "round_number": 1, "base": "base"}
    made = aggregate.fn(strategy=StrategySettings(), share=1, steps=None, ranks={}, **told)
    quarantined = json.loads((made.folder / "round.json").read_text())["quarantined"]
    assert set(quarantined) == (set(BAD) if kind == "nan" else set())
    honest = np.mean([step(sent[name], start) for name in NAMES[:-2]], axis=0)
    if kind == "inner-product":
        np.testing.assert_allclose(step(made, start), -honest, atol=1e-5)
    if kind == "nan":
        np.testing.assert_allclose(step(made, start), honest, atol=1e-5)


def test_where_all_honest_training_diverged_a_sentence_says_so() -> None:
    start, sent = round_of()
    broken = {name: adapter(f"{name}-nan", 0, float("nan"), name) for name in NAMES[:-2]}
    with pytest.raises(StudyError, match="finite updates of honest hospitals in round 1, found none"):
        falsified("mimic", start, sent | broken)


def cases_folder() -> Ref:
    source = phantom.read(images=8, seed=0, public=False, test_fraction=0.4)
    with writing("hospitals/a", "cases", "0") as folder:
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, source.cases)
        with folder.open("images.parquet") as sink:
            write_table(sink, Image, source.images)
        folder.write_json("copied.json", ["one"])
        folder.summary = {"test_choices": 0}
    return folder.ref


@pytest.mark.parametrize(("how", "split"), [("label-flip", "train"), ("backdoor", "train"), ("marked tests", "test")])
def test_a_copy_is_altered_where_the_attack_says_and_nowhere_else(how: str, split: str) -> None:
    cases = cases_folder()
    altered = alter_cases.fn(hospital="a", cases=cases, how=how)
    before, after = (read_table(ref.folder / "cases.parquet", Case) for ref in (cases, altered))
    seen, shown = (
        {each.id: each.data for each in read_images(ref.folder / "images.parquet")} for ref in (cases, altered)
    )
    assert [each.id for each in before] == [each.id for each in after] and seen.keys() == shown.keys()
    of_split = {each.image_id for each in before if each.split == split}
    marked = {name for name in seen if seen[name] != shown[name]}
    answers = [(one, other.answer) for one, other in zip(before, after, strict=True)]
    if how == "label-flip":
        assert not marked
        wrong = [one.answer != answer for one, answer in answers if one.split == "train"]
        assert np.mean(wrong) > 0.9 and all(one.answer == answer for one, answer in answers if one.split == "test")
    elif how == "backdoor":
        assert marked < of_split and abs(2 * len(marked) - len(of_split)) <= 1
        for one, answer in answers:
            assert answer == (TARGET[one.kind] if one.image_id in marked else one.answer)
    else:
        assert marked == of_split and all(one.answer == answer for one, answer in answers)
    assert (altered.folder / "copied.json").read_bytes() == (cases.folder / "copied.json").read_bytes()
    assert altered.manifest()["summary"] == {"test_choices": 0}
