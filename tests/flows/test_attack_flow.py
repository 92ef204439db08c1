"""Tables of attacks: which rows they have, what an attacker changes of a round, and a small one as a user runs it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import COMMAND, Server, run, start
from typer.testing import CliRunner

from flows import attack_tuning
from flows.attack import joined, planned, told
from flows.attack_tuning import candidates, choose
from flows.cli import main as cli
from flows.runtimes import falsified
from flows.runtimes.runtime import Trained
from tasks.attack.step import falsify_update
from tasks.compare.attack_results import Answered, Outcomes, Row
from tasks.records.federation import HospitalRefs, Order
from tasks.settings import FederationSettings, Study
from tasks.settings.attack import SMALL, AttackTable
from tasks.store import Ref


def test_a_strategy_that_does_not_bear_so_many_says_so_and_runs_with_enough_hospitals() -> None:
    rows = list(planned(AttackTable(strategies=("fedavg", "krum", "bulyan"), byzantine=(1, 2, 3))))
    assert [(row.strategy, row.byzantine, row.hospitals) for row in rows if not row.refused] == [
        ("fedavg", 1, 8),
        ("krum", 1, 8),
        ("bulyan", 1, 8),
        ("fedavg", 2, 8),
        ("krum", 2, 8),
        ("bulyan", 2, 11),
        ("fedavg", 3, 8),
        ("krum", 3, 9),
        ("bulyan", 3, 15),
    ]
    refused = {(row.strategy, row.byzantine): row for row in rows if row.refused}
    assert set(refused) == {("bulyan", 2), ("krum", 3), ("bulyan", 3)}
    assert refused["bulyan", 2].hospitals == 8
    assert "at least 11 hospitals for federation.strategy=bulyan" in refused["bulyan", 2].refused


def ref(name: str) -> Ref:
    return Ref(path=f"shared/{name}/0", digest=name)


def hospital(name: str) -> HospitalRefs:
    return HospitalRefs(name=name, cases=ref("c"), features=ref("f"), library=ref("l"), adapter=ref("start"))


class Plain:
    """A runtime whose updates are called after their hospitals."""

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        return Trained({each.name: ref(each.name) for each in hospitals}, 2.5)


def test_attackers_updates_are_replaced_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made of what all hospitals have sent, from the round's start."""
    asked: dict[str, Any] = {}

    def gathered(stage: Any, names: Sequence[str], **given: Any) -> dict[str, Ref]:
        assert stage is falsify_update and names == given["hospital"]
        asked.update({name: getattr(value, "value", value) for name, value in given.items()})
        return {name: ref(f"false-{name}") for name in names}

    monkeypatch.setattr(falsified, "gather_named", gathered)
    runtime = falsified.Falsified(Plain(), "mimic", ["b", "d"])
    names = ["a", "b", "c", "d"]
    settings = {"seed": 7, "federation": FederationSettings(batch_size=5)}
    found = runtime.train([hospital(name) for name in names], [Order(2, start="global")] * 4, settings)
    assert list(found.updates.values()) == [ref("a"), ref("false-b"), ref("c"), ref("false-d")]
    assert found.seconds == 2.5
    assert (asked["hospital"], asked["attackers"]) == (["b", "d"], ["b", "d"])
    assert (asked["own"], asked["honest"]) == ([ref("b"), ref("d")], [ref("a"), ref("c")])
    assert asked["asked"].batch_size == 5
    assert (asked["start"], asked["round_number"], asked["seed"], asked["attack"]) == (ref("start"), 2, 7, "mimic")


class Seen:
    """Stands for scenes and steps."""

    model = None

    def __init__(self) -> None:
        self.said: list[str] = []

    def hospitals(self, study: Study) -> list[HospitalRefs]:
        return []

    def done(self, what: str) -> None:
        self.said.append(what)


def test_a_strategy_chooses_what_loses_least_under_its_worst_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {
        0.5: {"none": 0.9, "mimic": 0.8, "nan": 0.9},
        1.0: {"none": 0.3, "mimic": 0.4, "nan": 1.2},
        2.0: {"none": 0.6, "mimic": 0.7, "nan": 0.6},
    }
    monkeypatch.setattr(
        attack_tuning, "loss_under", lambda study, scenes, attack: losses[study.federation.clip][attack]
    )
    monkeypatch.setattr(attack_tuning, "within_part", lambda name, work, title: work())
    table, seen = AttackTable(attacks=("mimic", "nan"), seeds=(4, 5)), Seen()
    assert choose(table, Row("norm-bounded", 2, 8), seen, seen) == {"federation.clip": 2.0}  # type: ignore[arg-type]
    assert seen.said[1] == "norm-bounded, 2, federation.clip=1.0: worst held-out loss 1.2000"
    assert choose(table, Row("fedavg", 2, 8), seen, seen) == {}  # type: ignore[arg-type]
    assert candidates("krum") and not candidates("fedavg")


def test_seeds_are_joined_and_one_that_failed_is_told() -> None:
    row = Answered(0, 1, "open", True, True, False)
    one, other = Outcomes([row], [row], 2, 0), Outcomes([row, row], [], 1, 3)
    assert joined([one, other]) == Outcomes([row, row, row], [row], 3, 3)
    assert joined([one, "no update"]) == "no update"
    assert told(one) == "1 of 1 right, 2 turned away" and told("no update") == "failed, no update"


def said(*arguments: str) -> str:
    wide = {"COLUMNS": "4000", "TERM": "dumb", "NO_COLOR": "1"}
    result = CliRunner().invoke(cli.app, list(arguments), env=wide)
    return " ".join(f"{result.output} {result.exception or ''}".split())


def test_the_command_explains_its_settings_and_refuses_what_is_none() -> None:
    printed = said("attack", "--help")
    assert "byzantine ([1, 2])" in printed and "study.dataset.images=24" in printed
    for group, values in SMALL.items():
        for name, value in values.items():
            assert f"study.{group}.{name}={value}" in printed
    assert "Input should be 'label-flip'" in said("attack", "--attacks", "flattery")
    assert "fewer than half" in said("attack", "--byzantine", "4")


TINY = ("dataset.images=10", "partition.hospitals=4", "federation.rounds=2", "evaluation.max_new_tokens=4")


def command(model: Path, *more: str) -> list[str]:
    words = [word for each in (*TINY, f"model.name={model}") for word in ("--set", f"study.{each}")]
    return [str(COMMAND), "attack", "--byzantine", "1", *words, *more]


@pytest.mark.slow
@pytest.mark.proof
def test_a_small_table_as_a_user_runs_it(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    chosen = ("--strategies", "fedavg,krum,bulyan", "--attacks", "sign-flip,nan,backdoor,label-flip")
    words = command(tiny_folder, *chosen)
    result = run(server, tmp_path, words)
    assert result.returncode == 0, result.stderr
    store, folder = tmp_path / "artifacts", tmp_path / "artifacts/attacks/attacks"
    cells = pd.read_parquet(folder / "attacks.parquet").set_index(["strategy", "hospitals", "attack"])
    assert len(cells) == 5 * 5  # krum wants 5 of them, bulyan 7
    assert set(cells[cells["refused"] != ""].index.droplevel("attack")) == {("krum", 4), ("bulyan", 4)}
    ran = cells[cells["refused"] == ""]
    assert (ran["n"] > 0).all() and ran["score"].between(0, 1).all() and not (ran["failed"] != "").any()
    assert (ran.xs("none", level="attack")["fall"] == 0).all()
    assert (ran.xs("nan", level="attack")["turned_away"] == 2).all()
    assert set(ran[ran["backdoor"].notna()].index.get_level_values("attack")) == {"none", "backdoor"}
    answered = {path.parts[-4] for path in store.glob("hospitals/*/predictions/*/predictions.parquet")}
    assert answered == {f"hospital-{n}" for n in range(1, 7)}  # the last one attacks, of 4, 5 and 7
    page = (folder / "attacks.html").read_text(encoding="utf-8")
    assert "Expected at least 5 hospitals for federation.strategy=krum" in page and "Backdoor, 1 attacker" in page
    for kind in ("falsified", "update"):
        folders = list(store.glob(f"shared/{kind}/*/manifest.json"))
        assert folders and all("tensors" in json.loads(path.read_text())["leaves"] for path in folders)
    again = run(server, tmp_path, words)
    assert again.returncode == 0
    assert set(server.task_states().values()) <= {"Cached", "Completed"}
    keys = {row["key"] for row in server.post("artifacts/latest/filter", {})}
    assert {"attack-tables", "attack-costs-1", "attack-progress"} <= keys


@pytest.mark.slow
def test_without_an_attack_a_cell_is_the_ordinary_study(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    """The final adapter that honest hospitals answer with is that of `fed-rag run` with the same settings."""
    assert run(server, tmp_path, command(tiny_folder, "--strategies", "median", "--attacks", "nan")).returncode == 0
    adapters = set((tmp_path / "artifacts/shared/adapter").iterdir())
    study = [*TINY, f"model.name={tiny_folder}", "dataset.test_fraction=0.4", "partition.scheme=iid"]
    study += ["federation.batch_size=4", "federation.learning_rate=0.01", "retrieval.k=1"]
    study += ["federation.holdout=0.2", "federation.strategy=median", "evaluation.reliance=0", "evaluation.saliency=0"]
    words = [str(COMMAND), "run", *(word for each in study for word in ("--set", each))]
    assert run(server, tmp_path, words).returncode == 0
    assert set((tmp_path / "artifacts/shared/adapter").iterdir()) == adapters


@pytest.mark.slow
@pytest.mark.proof
def test_on_two_workers_a_table_is_that_of_one_process(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    chosen, tables = ("--strategies", "fedavg,norm-bounded", "--attacks", "nan,label-flip", "--tune"), []
    for name, more in (("here", ()), ("cluster", ("--set", "study.engine={runner: dask, workers: 2}"))):
        folder = tmp_path / name
        folder.mkdir()
        done = start(command(tiny_folder, *chosen, *more), folder, server.environment)
        assert done.returncode == 0, done.stderr
        tables.append(pd.read_parquet(folder / "artifacts/attacks/attacks/attacks.parquet"))
    one, other = tables
    pd.testing.assert_frame_equal(one, other)
