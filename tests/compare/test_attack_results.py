"""Tables of attacks, from answers whose shares can be counted by hand."""

import pytest

from tasks.compare.attack_results import Answered, AttackResult, Outcomes, Row, flat, result, worst
from tasks.compare.attack_tables import attack_tables
from tasks.records.text_table import Table

ROW = Row("fedavg", 2, 8)


def answers(right: str, seed: int = 0) -> list[Answered]:
    """One for each letter, in turn closed and open, two an image: `x` is right, `t` the backdoor's answer."""
    return [
        Answered(seed, place // 2, ("closed", "open")[place % 2], letter == "x", place % 4 != 0, letter == "t")  # type: ignore[arg-type]
        for place, letter in enumerate(right)
    ]


def cell(row: Row, attack: str, right: str, clean: str = "xxxxxxx.") -> AttackResult:
    return result(row, attack, Outcomes(answers(right)), Outcomes(answers(clean)))


def test_scores_are_shares_of_right_answers_and_falls_are_of_the_same_cases() -> None:
    found = cell(ROW, "mimic", "x.x.xx..")
    values = {name: each.value for name, each in found.figures.items()}
    assert values == pytest.approx({"score": 4 / 8, "closed": 3 / 4, "open": 1 / 4, "fall": 3 / 8})
    assert found.n == 8
    for each in found.figures.values():
        assert each.low is not None and each.high is not None and each.low <= each.value <= each.high
    same = cell(ROW, "none", "xxxxxxx.")
    fall = same.figures["fall"]
    assert (fall.value, fall.low, fall.high) == (0, 0, 0)


def test_a_backdoor_counts_where_another_answer_was_right() -> None:
    """Places 0 and 4 ask for the backdoor's own answer."""
    found = result(ROW, "backdoor", Outcomes(answers("xxxx"), answers("tt.tt.xt")), Outcomes(answers("xxxx")))
    assert found.figures["backdoor"].value == pytest.approx(3 / 6)
    assert "backdoor" not in cell(ROW, "mimic", "x.x.xx..").figures


def test_the_worst_attack_scores_least_and_one_that_leaves_nothing_is_worse() -> None:
    cells = [cell(ROW, "none", "........"), cell(ROW, "mimic", "x......."), cell(ROW, "scaled", "xx......")]
    assert worst(cells) is cells[1]
    failed = result(ROW, "nan", "Expected a sound update.", Outcomes(answers("xx")))
    assert worst([*cells, failed]) is failed
    assert worst([AttackResult(Row("bulyan", 2, 8, "too few"), "mimic", 0, {})]) is None


def tables() -> dict[str, Table]:
    refused = Row("bulyan", 2, 8, "Expected at least 11 hospitals.")
    cells = [cell(ROW, "none", "xxxxxxx."), cell(ROW, "mimic", "xxxxxxx."), cell(ROW, "backdoor", "x.......")]
    cells += [AttackResult(refused, name, 0, {}) for name in ("none", "mimic", "backdoor")]
    whole, failed = Outcomes(answers("xx")), "Expected at least one sound update."
    median = Row("median", 2, 8, tuned="federation.pre_aggregation=nnm")
    cells += [result(median, "none", whole, whole), result(median, "mimic", whole, whole)]
    cells += [result(median, "backdoor", failed, whole)]
    return {table.title: table for table in attack_tables(cells)}


def test_each_row_shows_its_cells_and_its_worst() -> None:
    found = tables()
    assert list(found) == [
        "What attacks cost, 2 attackers",
        "Right answers, 2 attackers",
        "Closed questions, 2 attackers",
        "Open questions, 2 attackers",
        "Backdoor, 2 attackers",
    ]
    scores = found["Right answers, 2 attackers"]
    assert scores.headings == ("", "no attack", "mimic", "backdoor", "worst")
    named = {row[0]: row[1:] for row in scores.rows}
    assert named["fedavg, 8 hospitals"][0].startswith("0.875 [") and named["fedavg, 8 hospitals"][-1] == "backdoor"
    assert named["bulyan, 8 hospitals"] == ("refused", "refused", "refused", "-")
    assert named["median, 8 hospitals"][2:] == ("failed", "backdoor")
    assert "Expected at least 11 hospitals." in scores.note and "at least one sound update" in scores.note


def test_costs_count_what_is_held_out_and_what_breaks() -> None:
    costs = tables()["What attacks cost, 2 attackers"]
    named = {row[0]: row[1:] for row in costs.rows}
    assert set(named) == {"fedavg, 8 hospitals", "median, 8 hospitals"}
    assert named["fedavg, 8 hospitals"][:2] == ("1", "1") and named["fedavg, 8 hospitals"][2].startswith(
        "backdoor 0.750"
    )
    assert named["median, 8 hospitals"] == ("1", "1", "backdoor failed", "federation.pre_aggregation=nnm")


def test_a_row_of_numbers_has_a_place_for_each_figure() -> None:
    full, empty = flat(cell(ROW, "mimic", "x.x.xx..")), flat(AttackResult(ROW, "mimic", 0, {}))
    assert list(full) == list(empty)
    assert (full["strategy"], full["byzantine"], full["attack"], full["n"]) == ("fedavg", 2, "mimic", 8)
    assert full["score_low"] <= full["score"] == 0.5 <= full["score_high"]
    assert full["backdoor"] is empty["score"] is None
