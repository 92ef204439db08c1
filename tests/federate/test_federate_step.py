"""A federated round on disk: reproducible in any order, and not undone by a hospital that diverges."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from engine_samples import CASES, randomised, same
from safetensors.torch import load_file, save

from flows.coordinator import size
from tasks.cases.holdout import split_holdout
from tasks.engine import shared
from tasks.engine.adapter import CONFIG, WEIGHTS, State, load_state
from tasks.engine.base import load_base
from tasks.engine.batch import collate
from tasks.engine.engine import Engine
from tasks.engine.hospital import open_hospital
from tasks.engine.identity import choose_model
from tasks.engine.train import mean_loss
from tasks.engine.vision import FEATURES, Features
from tasks.errors import StudyError
from tasks.federate.lora_mean.rule import choose_rule
from tasks.federate.means import weighted_mean
from tasks.federate.personalise.step import mix_adapters, train_personal
from tasks.federate.step import (
    aggregate,
    initial_adapter,
    join_adapter,
    keep_control,
    send_update,
    take_update,
    train_at_home,
    train_hospital,
    train_together,
    validate_hospital,
)
from tasks.records import Case, Neighbour, write_table
from tasks.records.federation import CONTROL_FILE, HospitalRefs
from tasks.settings import ContextSettings, FederationSettings, LocalRule, LoraSettings, ModelSettings, StrategySettings
from tasks.store import Ref, tree_digest, writing

LORA = LoraSettings(r=4, alpha=8)
FEDERATION = FederationSettings(rounds=1, local_epochs=2, batch_size=4, learning_rate=1e-2, holdout=0.3)
PLAIN = LocalRule()
FEDAVG = FEDERATION.server
DIVERGING = FEDERATION.model_copy(update={"learning_rate": 1e30, "local_epochs": 4})


class Round:
    """Two hospitals' folders, and the stages of a round called as the flow calls them."""

    def __init__(self, folder: Path, features: Features) -> None:
        self.model = choose_model(ModelSettings(name=str(folder), device="cpu"))
        self.start = initial_adapter.fn(model=self.model, lora=LORA, seed=0)
        self.hospitals = {name: self.prepare(name, rows, features) for name, rows in HOSPITALS.items()}

    def prepare(self, name: str, rows: list[Case], features: Features) -> HospitalRefs:
        area, refs = f"hospitals/{name}", {"adapter": self.start}
        with writing(area, "cases", "0") as folder, folder.open("cases.parquet") as sink:
            write_table(sink, Case, rows)
        refs["cases"] = folder.ref
        with writing(area, "library", "0") as folder, folder.open("neighbours.parquet") as sink:
            others = zip(rows, rows[1:] + rows[:1], strict=True)
            write_table(sink, Neighbour, [Neighbour(one.id, 0, other.id, 0.5) for one, other in others])
        refs["library"] = folder.ref
        with writing(area, "features", "0") as folder:
            folder.write(FEATURES, features.to_bytes())
        refs["features"] = folder.ref
        return HospitalRefs(name=name, **refs)

    def given(self, hospital: str, adapter: Ref, federation: FederationSettings, number: int = 1) -> dict[str, Any]:
        settings = {
            "model": self.model,
            "lora": LORA,
            "federation": federation,
            "context": ContextSettings(k=1),
            "seed": 0,
        }
        return {"hospital": self.hospitals[hospital].given(adapter), "round_number": number} | settings

    def train(
        self,
        hospital: str,
        federation: FederationSettings = FEDERATION,
        number: int = 1,
        local: LocalRule = PLAIN,
    ) -> Ref:
        return train_hospital.fn(**self.given(hospital, self.start, federation, number), local=local)

    def aggregate(
        self,
        sent: list[Ref],
        number: int = 1,
        state: Ref | None = None,
        strategy: StrategySettings = FEDAVG,
        names: list[str] | None = None,
        share: float = 1,
        ranks: dict[str, int] | None = None,
    ) -> Ref:
        return aggregate.fn(
            strategy=strategy,
            state=state or self.start,
            hospitals=names or list(HOSPITALS),
            updates=sent,
            round_number=number,
            base=self.model.content,
            share=share,
            steps=None,
            ranks=ranks or {},
        )

    def validate(self, hospital: str, adapter: Ref, least: int = 1) -> dict[str, Any]:
        ref = validate_hospital.fn(**self.given(hospital, adapter, FEDERATION), min_cell=least)
        return dict(json.loads((ref.folder / "validation.json").read_text()))


HOSPITALS = {"north": CASES[:3], "south": CASES[3:]}


@pytest.fixture
def one_round(
    tiny_folder: Path, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Round]:
    monkeypatch.chdir(tmp_path)
    yield Round(tiny_folder, features)
    shared._engine.clear()
    shared._base.clear()


def all_of(given: list[dict[str, Any]]) -> dict[str, Any]:
    """What `train_together` is called with, of what `train_hospital` is for each hospital."""
    common = {name: value for name, value in given[0].items() if name != "hospital"}
    return common | {"hospitals": [each["hospital"] for each in given], "local": PLAIN}


def update_of(ref: Ref) -> dict[str, Any]:
    return dict(json.loads((ref.folder / "update.json").read_text()))


def lost(start: Ref, states: list[State], updates: list[dict[str, Any]]) -> float:
    """What the mean of factors misses of the update, by whole matrices in NumPy."""
    shares = np.array([update["samples"] for update in updates]) / sum(update["samples"] for update in updates)
    missed = moved = 0.0
    for name, before in load_state(start.folder).items():
        if "lora_A" in name:
            other = name.replace("lora_A", "lora_B")
            factors = [(state[other].double().numpy(), state[name].double().numpy()) for state in states]
            true = sum(share * b @ a for share, (b, a) in zip(shares, factors, strict=True))
            b, a = (np.average(np.stack(each), axis=0, weights=shares) for each in zip(*factors, strict=True))
            first = load_state(start.folder)[other].double().numpy() @ before.double().numpy()
            missed, moved = missed + ((true - b @ a) ** 2).sum(), moved + ((true - first) ** 2).sum()
    return float(np.sqrt(missed / moved))


def test_the_next_adapter_is_the_mean_of_the_updates(one_round: Round) -> None:
    sent = [one_round.train(hospital) for hospital in HOSPITALS]
    adapter = one_round.aggregate(sent)
    states, updates = [load_state(ref.folder) for ref in sent], [update_of(ref) for ref in sent]
    assert same(load_state(adapter.folder), weighted_mean(states, [update["samples"] for update in updates]))
    assert not same(*states)
    assert updates[0]["samples"] != updates[1]["samples"]
    assert all(not same(state, load_state(one_round.start.folder)) for state in states)
    summary = json.loads((adapter.folder / "round.json").read_text())
    assert summary.keys() == {"round", "train_loss", "samples", "quarantined", "lost_share"}
    assert summary["round"] == 1
    assert summary["samples"] == {update["hospital"]: update["samples"] for update in updates}
    assert all(0 < update["samples"] < len(HOSPITALS[update["hospital"]]) for update in updates)
    weighted = sum(update["samples"] * update["loss"] for update in updates)
    assert summary["train_loss"] == pytest.approx(weighted / sum(summary["samples"].values()))
    assert summary["quarantined"] == {}
    assert summary["lost_share"] == {"factors": pytest.approx(lost(one_round.start, states, updates), rel=1e-3)}
    assert (adapter.folder / CONFIG).read_bytes() == (one_round.start.folder / CONFIG).read_bytes()
    before, after = (one_round.validate("north", ref) for ref in (one_round.start, adapter))
    assert before["tokens"] == after["tokens"] > 0
    assert after["loss"] != before["loss"]


def test_no_loss_is_published_of_few_held_out_cases(one_round: Round) -> None:
    assert one_round.validate("north", one_round.start)["tokens"] > 0
    validation = one_round.validate("north", one_round.start, least=5)
    assert (validation["loss"], validation["tokens"]) == (0, 0)


def test_trained_together_is_trained_alone(one_round: Round) -> None:
    exact = LORA.model_copy(update={"dropout": 0.0})
    given = {name: one_round.given(name, one_round.start, FEDERATION) | {"lora": exact} for name in HOSPITALS}
    together = train_together.fn(**all_of(list(given.values())))
    for hospital, each in given.items():
        alone = train_hospital.fn(**each, local=PLAIN)
        ref = take_update.fn(hospital=hospital, together=together, round_number=1)
        assert ref.path.startswith("shared/update/")
        torch.testing.assert_close(load_state(ref.folder), load_state(alone.folder), rtol=0, atol=1e-5)
        assert (ref.folder / CONFIG).read_bytes() == (alone.folder / CONFIG).read_bytes()
        found, expected = update_of(ref), update_of(alone)
        assert found.pop("loss") == pytest.approx(expected.pop("loss"), abs=1e-5)
        assert found == expected
        assert ref.manifest()["files"].keys() == alone.manifest()["files"].keys()


@pytest.mark.parametrize("frozen", ["A", "B"])
def test_a_frozen_factor_is_neither_trained_nor_sent(one_round: Round, frozen: Literal["A", "B"]) -> None:
    """Alone as in one pass; without a frozen factor all tensors move and are sent."""
    started = randomised(load_state(one_round.start.folder), 3)  # with a B of zero, A would not move
    with writing("shared", "adapter", "started") as folder:
        folder.write(WEIGHTS, save(started, {"format": "pt"}))
    exact = LORA.model_copy(update={"dropout": 0.0})
    given = [one_round.given(name, folder.ref, FEDERATION) | {"lora": exact} for name in HOSPITALS]
    local = LocalRule(frozen=frozen)
    together = train_together.fn(**all_of(given) | {"local": local})
    for each in given:
        alone = train_hospital.fn(**each, local=local)
        state = load_state(alone.folder)
        assert state.keys() == {name for name in started if f"lora_{frozen}" not in name}
        assert all(not torch.equal(state[name], started[name]) for name in state)
        parted = take_update.fn(hospital=each["hospital"].name, together=together, round_number=1)
        torch.testing.assert_close(load_state(parted.folder), state, rtol=0, atol=1e-5)
    both = load_state(train_hospital.fn(**given[0], local=PLAIN).folder)
    assert both.keys() == started.keys()
    assert all(not torch.equal(both[name], started[name]) for name in both)


@pytest.mark.parametrize("rule", ["stacked", "residual"])
def test_hospitals_train_beside_a_residual(one_round: Round, rule: Literal["stacked", "residual"]) -> None:
    """A second round, alone as in one pass: other updates than without the residual, which itself is not sent."""
    sent = [one_round.train(hospital) for hospital in HOSPITALS]
    strategy = StrategySettings(lora_mean=rule)
    adapter = one_round.aggregate(sent, strategy=strategy)
    with writing("shared", "adapter", "bare") as bare:
        for path in (adapter.folder / WEIGHTS, adapter.folder / CONFIG):
            bare.write(path.name, path.read_bytes())
    exact = LORA.model_copy(update={"dropout": 0.0})
    given = [one_round.given(name, adapter, FEDERATION, 2) | {"lora": exact} for name in HOSPITALS]
    together = train_together.fn(**all_of(given))
    second = []
    for each in given:
        second.append(train_hospital.fn(**each, local=PLAIN))
        state = load_state(second[-1].folder)
        assert state.keys() == load_state(one_round.start.folder).keys()
        parted = take_update.fn(hospital=each["hospital"].name, together=together, round_number=2)
        torch.testing.assert_close(load_state(parted.folder), state, rtol=0, atol=1e-5)
        without = train_hospital.fn(**each | {"hospital": each["hospital"].given(bare.ref)}, local=PLAIN)
        assert not same(load_state(without.folder), state)
    last = one_round.aggregate(second, 2, adapter, strategy)
    shares = json.loads((last.folder / "round.json").read_text())["lost_share"]
    assert shares[rule] < 1e-5 < shares["factors"]
    assert size(last, False) > size(bare.ref, False)
    assert one_round.validate("north", last)["loss"] > 0


def test_an_update_of_another_alpha_is_averaged_as_what_it_changes(one_round: Round) -> None:
    sent = [one_round.train(hospital) for hospital in HOSPITALS]
    config = json.loads((sent[1].folder / CONFIG).read_text())
    with writing("shared", "update", "other") as folder:
        state = load_state(sent[1].folder)
        halved = {name: tensor / 2 if "lora_B" in name else tensor for name, tensor in state.items()}
        folder.write(WEIGHTS, save(halved, {"format": "pt"}))
        folder.write(CONFIG, json.dumps(config | {"lora_alpha": 2 * config["lora_alpha"]}).encode())
        folder.write("update.json", (sent[1].folder / "update.json").read_bytes())
    plain, other = (one_round.aggregate(updates) for updates in (sent, [sent[0], folder.ref]))
    assert same(load_state(plain.folder), load_state(other.folder))
    assert (other.folder / CONFIG).read_bytes() == (one_round.start.folder / CONFIG).read_bytes()


def test_a_factor_that_is_kept_never_leaves_the_hospital(one_round: Round) -> None:
    given = one_round.given("north", one_round.start, FEDERATION)
    trained = train_at_home.fn(**given, local=PLAIN)
    assert trained.path.startswith("hospitals/north/")
    assert same(load_state(trained.folder), load_state(one_round.train("north").folder))
    sent = send_update.fn(hospital="north", trained=trained, keeps=("lora_B",), round_number=1)
    whole, part = load_state(trained.folder), load_state(sent.folder)
    assert part.keys() == {name for name in whole if "lora_B" not in name}
    assert same(part, {name: whole[name] for name in part})
    assert update_of(sent) == update_of(trained)
    strategy = StrategySettings(lora_mean="share-a")
    other = send_update.fn(hospital="south", trained=one_round.train("south"), keeps=("lora_B",), round_number=1)
    state = one_round.aggregate([sent, other], strategy=strategy)
    joined = join_adapter.fn(hospital="north", state=state, trained=trained, round_number=1)
    assert joined.path.startswith("hospitals/north/")
    mean, found = load_state(state.folder), load_state(joined.folder)
    assert same(found, {name: mean.get(name, tensor) for name, tensor in whole.items()})
    assert not same(found, whole)
    assert one_round.validate("north", joined)["loss"] > 0


def test_a_hospital_of_a_lower_rank_trains_as_with_an_adapter_of_that_rank(one_round: Round) -> None:
    """The oracle is an engine whose adapter has two components, scaled alike; what is sent is what PEFT would send."""
    sent = one_round.train("north", local=LocalRule(rank=2))
    with writing("shared", "smaller", "0") as folder:
        state = {
            name: tensor[:2] if "lora_A" in name else tensor[:, :2]
            for name, tensor in load_state(one_round.start.folder).items()
        }
        folder.write(WEIGHTS, save({name: tensor.contiguous() for name, tensor in state.items()}, {"format": "pt"}))
    given = one_round.given("north", folder.ref, FEDERATION) | {"lora": LoraSettings(r=2, alpha=4)}
    alone = train_hospital.fn(**given, local=PLAIN)
    for name, tensor in load_state(alone.folder).items():
        torch.testing.assert_close(load_state(sent.folder)[name], tensor, rtol=1e-3, atol=1e-4)
    assert json.loads((sent.folder / CONFIG).read_text()) == json.loads((alone.folder / CONFIG).read_text())


@pytest.mark.parametrize("rule", ["factors", "product", "freeze-a", "stacked"])
def test_updates_of_a_lower_rank_are_padded_with_zeros_where_that_was_agreed(
    one_round: Round, rule: Literal["factors", "product", "freeze-a", "stacked"]
) -> None:
    frozen: Literal["A"] | None = "A" if rule == "freeze-a" else None
    sent = [
        one_round.train(name, local=LocalRule(rank=rank, frozen=frozen))
        for name, rank in (("north", 2), ("south", None))
    ]
    strategy = StrategySettings(lora_mean=rule)
    refused = one_round.aggregate(sent, strategy=strategy)
    found = json.loads((refused.folder / "round.json").read_text())
    assert found["quarantined"].keys() == {"north"}
    mean = one_round.aggregate(sent, strategy=strategy, ranks={"north": 2})
    assert json.loads((mean.folder / "round.json").read_text())["quarantined"] == {}
    weights = np.array([update_of(ref)["samples"] for ref in sent])
    states, start = [load_state(ref.folder) for ref in sent], load_state(one_round.start.folder)
    whole = load_state(mean.folder)
    for name in (name for name in start if "lora_A" in name):
        other = name.replace("lora_A", "lora_B")
        pairs = [
            (state[other].double(), state.get(name, start[name][:2] if rank else start[name]).double())
            for state, rank in zip(states, (2, None), strict=True)
        ]
        if rule == "factors":
            rows = torch.nn.functional.pad(pairs[0][1], (0, 0, 0, 2)), pairs[1][1]
            torch.testing.assert_close(
                whole[name].double(),
                torch.as_tensor(np.average(np.stack(rows), axis=0, weights=weights)),
                rtol=1e-5,
                atol=1e-7,
            )
            continue
        true = sum(share * b @ a for share, (b, a) in zip(weights / weights.sum(), pairs, strict=True))
        product = whole[other].double() @ whole[name].double()
        for hidden in (each for each in whole if each == name.replace(".lora_", ".residual_")):
            product = product + whole[hidden.replace("_A", "_B")].double() @ whole[hidden].double()
        error = torch.linalg.matrix_norm(product - true) / torch.linalg.matrix_norm(true)
        assert error < (0.5 if rule == "product" else 1e-5)


def test_layers_of_a_hospitals_own_never_leave_it_and_the_others_are_averaged(one_round: Round) -> None:
    """FedPer: what is sent is the mean's share, what is kept is as it was trained."""
    strategy = StrategySettings(personal_layers=("q_proj",))
    keeps = choose_rule(strategy).order(1, "north").keeps
    trained = {name: one_round.train(name) for name in HOSPITALS}
    sent = [send_update.fn(hospital=name, trained=ref, keeps=keeps, round_number=1) for name, ref in trained.items()]
    names = load_state(trained["north"].folder).keys()
    assert {name for name in names if ".q_proj." not in name} == load_state(sent[0].folder).keys() != names
    state = one_round.aggregate(sent, strategy=strategy)
    joined = join_adapter.fn(hospital="north", state=state, trained=trained["north"], round_number=1)
    whole, plain = load_state(joined.folder), load_state(one_round.aggregate(list(trained.values())).folder)
    own = load_state(trained["north"].folder)
    assert same(whole, {name: (own if ".q_proj." in name else plain)[name] for name in names})


def test_a_personal_adapter_is_pulled_to_the_one_for_all_and_stays_home(one_round: Round) -> None:
    """Without a pull it is trained as any adapter; the harder the pull, the nearer it is."""
    towards = one_round.train("south")
    given = one_round.given("north", one_round.start, FEDERATION)
    distances = []
    for pull in (0.0, 3.0, 3000.0):
        personal = train_personal.fn(**given, towards=towards, local=LocalRule(proximal_mu=pull))
        assert personal.path.startswith("hospitals/north/personal/")
        state, other = load_state(personal.folder), load_state(towards.folder)
        distances.append(sum(float((state[name] - other[name]).norm() ** 2) for name in state))
        assert pull or same(state, load_state(one_round.train("north").folder))
    assert distances[0] > distances[1] > distances[2]


def test_a_mixture_is_the_one_that_suits_the_held_out_cases(one_round: Round) -> None:
    """Each weight's adapter, made here as one of both ranks side by side, has the loss that decides."""
    for_all, own = one_round.train("south"), one_round.train("north")
    given = one_round.given("north", own, FEDERATION)
    del given["round_number"]
    made = mix_adapters.fn(**given, for_all=for_all)
    assert made.path.startswith("hospitals/north/mixture/")
    found = json.loads((made.folder / "mixture.json").read_text())
    assert found["weight"] == np.argmin(found["losses"]) / 10
    for place, ref in ((0, for_all), (10, own)):
        assert found["losses"][place] == pytest.approx(one_round.validate("north", ref)["loss"], rel=1e-5)
    assert min(found["losses"]) == pytest.approx(one_round.validate("north", made)["loss"], rel=1e-5)
    base = load_base(one_round.model.name, device="cpu")
    wide = Engine(base, 2 * LORA.r, 2 * LORA.alpha, 0.0, list(LORA.targets))
    states = [load_state(ref.folder) for ref in (own, for_all)]
    for place, share in ((3, 0.3), (8, 0.8)):
        both = {
            name: torch.cat([states[0][name], states[1][name]])
            if "lora_A" in name
            else torch.cat([share * states[0][name], (1 - share) * states[1][name]], dim=1)
            for name in states[0]
        }
        wide.switch(both)
        hospital_data = open_hospital(one_round.hospitals["north"])
        _, held_out = split_holdout(hospital_data.cases, FEDERATION.holdout, 0)
        examples = hospital_data.examples(base, held_out, ContextSettings(k=1))
        loss, _ = mean_loss(wide, hospital_data.features, examples, FEDERATION.tokens_per_pass)
        assert found["losses"][place] == pytest.approx(loss, rel=1e-4)
    none = FEDERATION.model_copy(update={"holdout": 0.0})
    without = mix_adapters.fn(**given | {"federation": none}, for_all=for_all)
    assert json.loads((without.folder / "mixture.json").read_text())["weight"] == 0


def test_a_personal_adapter_keeps_the_residual_that_it_was_trained_beside(one_round: Round) -> None:
    sent = [one_round.train(hospital) for hospital in HOSPITALS]
    strategy = StrategySettings(lora_mean="residual")
    adapter = one_round.aggregate(sent, strategy=strategy)
    given = one_round.given("north", adapter, FEDERATION, 2)
    personal = load_state(train_personal.fn(**given, towards=adapter, local=PLAIN).folder)
    before = load_state(adapter.folder)
    assert personal.keys() == before.keys()
    assert all(torch.equal(personal[name], before[name]) == ("residual" in name) for name in before)


def test_what_rules_lose_is_told_for_both(one_round: Round) -> None:
    sent = [one_round.train(hospital) for hospital in HOSPITALS]
    strategy = StrategySettings(lora_mean="product")
    adapter = one_round.aggregate(sent, strategy=strategy)
    shares = json.loads((adapter.folder / "round.json").read_text())["lost_share"]
    states, updates = [load_state(ref.folder) for ref in sent], [update_of(ref) for ref in sent]
    assert shares.keys() == {"factors", "product"}
    assert shares["factors"] == pytest.approx(lost(one_round.start, states, updates), rel=1e-3)
    assert 0 < shares["product"] < shares["factors"]
    alone = one_round.aggregate(sent, strategy=StrategySettings(strategy="none"))
    assert json.loads((alone.folder / "round.json").read_text())["lost_share"] == {}


def test_only_the_adapter_and_counts_leave_a_hospital(one_round: Round) -> None:
    ref = one_round.train("north")
    assert ref.path.startswith("shared/")
    assert {path.name for path in ref.folder.iterdir()} == {WEIGHTS, CONFIG, "update.json", "manifest.json"}
    assert set(update_of(ref)) == {"hospital", "round", "samples", "loss", "steps", "base"}
    texts = (update_of(ref), json.loads((ref.folder / CONFIG).read_text()), ref.manifest())
    assert not any(case.question in str(texts) or case.answer in str(texts) for case in CASES if len(case.answer) > 5)


def test_hospitals_in_another_order_give_the_same_bytes(one_round: Round) -> None:
    first = {hospital: one_round.train(hospital).digest for hospital in ("north", "south")}
    again = {hospital: one_round.train(hospital).digest for hospital in ("south", "north")}
    assert first == again


def test_training_and_validation_share_no_case(one_round: Round) -> None:
    """Other answers to what is held out change the loss of validation alone, other answers to the rest all updates."""

    def results(changed: int | None = None) -> tuple[list[str], list[float]]:
        """Digests of all updates, and validation's losses, where what is trained on (0) or held out (1) is changed."""
        each = []
        for name, rows in HOSPITALS.items():
            chosen = split_holdout(rows, FEDERATION.holdout, 0)[changed] if changed is not None else []
            others = [replace(row, answer=f"{row.answer} and fracture") if row in chosen else row for row in rows]
            with writing(f"hospitals/{name}", "cases", f"{changed}") as folder, folder.open("cases.parquet") as sink:
                write_table(sink, Case, others)
            given = one_round.given(name, one_round.start, FEDERATION) | {"context": ContextSettings(k=0)}
            each.append(given | {"hospital": given["hospital"].model_copy(update={"cases": folder.ref})})
        made = [*(train_hospital.fn(**one, local=PLAIN) for one in each), train_together.fn(**all_of(each))]
        validations = [
            json.loads((validate_hospital.fn(**one, min_cell=1).folder / "validation.json").read_text()) for one in each
        ]
        return [tree_digest(ref.folder, {"manifest.json"}) for ref in made], [one["loss"] for one in validations]

    updates, losses = results()
    for held_out in (0, 1):
        other_updates, other_losses = results(held_out)
        assert [one == other for one, other in zip(updates, other_updates, strict=True)] == [held_out == 1] * 3
        assert [one == other for one, other in zip(losses, other_losses, strict=True)] == [held_out == 0] * 2


def test_validation_is_the_mean_loss_of_what_is_held_out(one_round: Round) -> None:
    """Against the loss that Transformers gives, one case at a time."""
    adapter = one_round.train("south")
    base = load_base(one_round.model.name, device="cpu")
    engine = Engine(base, LORA.r, LORA.alpha, 0.0, list(LORA.targets))
    engine.switch(load_state(adapter.folder))
    hospital_data = open_hospital(one_round.hospitals["south"])
    _, held_out = split_holdout(hospital_data.cases, FEDERATION.holdout, 0)
    total, tokens = 0.0, 0
    for example in hospital_data.examples(base, held_out, ContextSettings(k=1)):
        batch = collate(base, hospital_data.features, [example])
        with torch.inference_mode():
            total += float(base.model(**batch.inputs, labels=batch.labels).loss) * len(example.answer_ids)
        tokens += len(example.answer_ids)
    validation = one_round.validate("south", adapter)
    assert validation["tokens"] == tokens
    assert validation["loss"] == pytest.approx(total / tokens, rel=1e-4)


def test_each_round_draws_anew(one_round: Round) -> None:
    first, second = (load_state(one_round.train("south", number=number).folder) for number in (1, 2))
    assert not same(first, second)


def test_a_hospital_that_diverges_is_left_out(one_round: Round) -> None:
    sent = [one_round.train("north"), one_round.train("south", DIVERGING)]
    assert update_of(sent[1])["loss"] is None
    adapter = one_round.aggregate(sent)
    assert same(load_state(adapter.folder), load_state(sent[0].folder))
    summary = json.loads((adapter.folder / "round.json").read_text())
    assert summary["quarantined"].keys() == {"south"}
    assert summary["quarantined"]["south"].startswith("not finite (")
    assert summary["samples"].keys() == {"north"}
    assert summary["train_loss"] == update_of(sent[0])["loss"]
    with pytest.raises(StudyError, match=r"found none \(south: not finite .*lower federation.learning_rate"):
        one_round.aggregate(sent[1:], names=["south"])


def test_an_adapter_too_large_to_compute_with(one_round: Round) -> None:
    state = load_state(one_round.start.folder)
    huge = {name: tensor.sign() * 1e30 for name, tensor in randomised(state, 1).items()}
    assert all(torch.isfinite(tensor).all() for tensor in huge.values())
    with writing("shared", "adapter", "huge") as folder:
        folder.write(WEIGHTS, save(huge, {"format": "pt"}))
    with pytest.raises(StudyError, match=r"finite loss of round 1's adapter at north, found nan: lower federation"):
        one_round.validate("north", folder.ref)


CONTROLLED = LocalRule(control=True)
SCAFFOLD = FEDERATION.model_copy(update={"strategy": "scaffold"}).server


def two_rounds(one_round: Round) -> tuple[Ref, list[Ref]]:
    """The adapter after two rounds of SCAFFOLD, and the control variates that hospitals keep."""
    adapter, controls = one_round.start, dict[str, Ref | None](dict.fromkeys(HOSPITALS))
    for number in (1, 2):
        sent = []
        for name in HOSPITALS:
            given = one_round.given(name, adapter, FEDERATION, number)
            hospital = given["hospital"].model_copy(update={"control": controls[name]})
            sent.append(train_hospital.fn(**given | {"hospital": hospital}, local=CONTROLLED))
        adapter = one_round.aggregate(sent, number, adapter, SCAFFOLD)
        for name, update in zip(HOSPITALS, sent, strict=True):
            controls[name] = keep_control.fn(hospital=name, before=controls[name], update=update)
    return adapter, [ref for ref in controls.values() if ref]


def test_scaffold_corrects_from_the_second_round_and_gives_the_same_bytes_again(one_round: Round) -> None:
    plain = one_round.train("north")
    first = one_round.train("north", local=CONTROLLED)
    assert (plain.folder / WEIGHTS).read_bytes() == (first.folder / WEIGHTS).read_bytes()
    assert {path.name for path in first.folder.iterdir()} - {path.name for path in plain.folder.iterdir()} == {
        CONTROL_FILE
    }
    adapter, controls = two_rounds(one_round)
    assert (adapter.folder / CONTROL_FILE).exists()
    assert all(ref.path.startswith(f"hospitals/{name}/control/") for name, ref in zip(HOSPITALS, controls, strict=True))
    digests = [ref.digest for ref in (adapter, *controls)]
    for place in ("shared", "hospitals/north/control"):
        shutil.rmtree(Path("artifacts") / place)
    one_round.start = initial_adapter.fn(model=one_round.model, lora=LORA, seed=0)
    again, others = two_rounds(one_round)
    assert [ref.digest for ref in (again, *others)] == digests


def test_the_servers_control_variate_is_the_mean_of_the_hospitals(one_round: Round) -> None:
    adapter, controls = two_rounds(one_round)
    samples = json.loads((adapter.folder / "round.json").read_text())["samples"]
    held = [load_file(ref.folder / CONTROL_FILE) for ref in controls]
    expected = weighted_mean(held, [samples[name] for name in HOSPITALS])
    for name, tensor in load_file(adapter.folder / CONTROL_FILE).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    assert any(tensor.abs().max() > 0 for tensor in expected.values())


def test_the_servers_control_variate_moves_by_the_mean_over_all_hospitals_where_some_took_no_part(
    one_round: Round,
) -> None:
    """Those that took no part changed theirs by 0 (SCAFFOLD's algorithm 1): of three hospitals, one was not asked."""
    sent = [one_round.train(name, local=CONTROLLED) for name in HOSPITALS]
    of_all, of_some = (one_round.aggregate(sent, 1, None, SCAFFOLD, share=share) for share in (1, 2 / 3))
    assert same(load_state(of_all.folder), load_state(of_some.folder))
    whole, part = (load_file(ref.folder / CONTROL_FILE) for ref in (of_all, of_some))
    for name, tensor in part.items():
        torch.testing.assert_close(tensor, whole[name] * 2 / 3)


def test_a_hospital_that_starts_from_its_own_control_variate_trains_otherwise(one_round: Round) -> None:
    adapter, controls = two_rounds(one_round)
    given = one_round.given("north", adapter, FEDERATION, 3)
    with_own = given["hospital"].model_copy(update={"control": controls[0]})
    states = [
        load_state(train_hospital.fn(**given | {"hospital": hospital}, local=local).folder)
        for hospital, local in ((given["hospital"], PLAIN), (given["hospital"], CONTROLLED), (with_own, CONTROLLED))
    ]
    assert not same(states[0], states[1]) and not same(states[1], states[2])


def forged(ref: Ref, key: str, counts: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Ref:
    """A hospital's update with other counts or another adapter configuration."""
    with writing("shared", "update", key) as folder:
        for path in ref.folder.iterdir():
            change = {"update.json": counts, CONFIG: config}.get(path.name)
            data = path.read_bytes()
            if path.name != "manifest.json":
                folder.write(path.name, json.dumps(json.loads(data) | change).encode() if change else data)
    return folder.ref


@pytest.mark.parametrize(
    ("counts", "config", "reason"),
    [
        ({"base": "another"}, None, "trained on another base"),
        ({"hospital": "north"}, None, "in another hospital's name"),
        ({"round": 2}, None, "of round 2"),
        ({"samples": 0}, None, "no valid number of training cases"),
        ({"samples": "many"}, None, "no valid number of training cases"),
        ({"more": 1}, None, "unreadable"),
        (None, {"r": 512}, "another adapter configuration (r)"),
    ],
)
def test_a_forged_update_is_turned_away(
    one_round: Round, counts: dict[str, Any] | None, config: dict[str, Any] | None, reason: str
) -> None:
    sent = [one_round.train("north"), forged(one_round.train("south"), "forged", counts, config)]
    adapter = one_round.aggregate(sent)
    assert json.loads((adapter.folder / "round.json").read_text())["quarantined"] == {"south": reason}
    assert same(load_state(adapter.folder), load_state(sent[0].folder))


def test_a_file_that_is_no_tensors_is_turned_away(one_round: Round) -> None:
    sent = [one_round.train("north"), one_round.train("south")]
    (sent[1].folder / WEIGHTS).write_bytes(b"no tensors")
    adapter = one_round.aggregate(sent)
    assert json.loads((adapter.folder / "round.json").read_text())["quarantined"] == {"south": "unreadable"}


def test_the_configuration_of_the_next_adapter_is_the_servers(one_round: Round) -> None:
    """Not that of whichever hospital is first."""
    sent = [forged(one_round.train("north"), "forged", config={"lora_alpha": 512}), one_round.train("south")]
    adapter = one_round.aggregate(sent)
    assert (adapter.folder / CONFIG).read_bytes() == (one_round.start.folder / CONFIG).read_bytes()


def test_a_robust_strategy_is_refused_where_too_few_hospitals_sent_updates(one_round: Round) -> None:
    sent = [one_round.train(hospital) for hospital in HOSPITALS]
    with pytest.raises(StudyError, match=r"at least 3 hospitals for federation.strategy=median .*, found 2"):
        one_round.aggregate(sent, strategy=StrategySettings(strategy="median"))
