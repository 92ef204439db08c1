"""What a hospital shares of its answers: the scores of all, and nothing of few cases, whatever is subtracted."""

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_comparison import outcome
from test_details import shared

from flows.run_folder import dataset_counts
from tasks.compare.aligned import align
from tasks.compare.scores import score_entries
from tasks.records import Case, Outcome, Prediction
from tasks.records.shared_documents import SharedDocuments
from tasks.report.held_back import held_back, held_back_rows, held_back_sentence
from tasks.report.intervals import details
from tasks.report.results import score_table
from tasks.score.groups import SHARED_GROUPS
from tasks.score.outcomes import judge, outcomes
from tasks.score.score import OpenRow, summarise
from tasks.score.sharing import share

LEAST = 5
ORDER = (
    *("n", "correct", "closed", "open", "closed_accuracy"),
    *("open_exact_match", "open_f1", "open_bleu", "open_rouge_l", "open_token_recall"),
    *("lightfed_accuracy", "lightfed_bleu", "lightfed_rouge_l", "llava_med_closed", "llava_med_open"),
    *(f"{what}_{label}" for what in ("right", "gold", "said") for label in ("yes", "no", "another")),
)
"""Rows are sorted by the last column, then by the one before."""


@st.composite
def cases(draw: st.DrawFn) -> list[Outcome]:
    """One configuration's outcomes at one hospital, few of some kinds and values."""
    made = []
    for case in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(["closed", "open"]))
        right = float(draw(st.booleans()))
        gold = draw(st.sampled_from([0, 0, 0, 1, 2]))
        labels = {"gold": gold, "predicted": gold if right else 3} if kind == "closed" else {}
        more = {
            "choice": int(kind == "closed" and draw(st.integers(0, 4)) == 0),
            "modality": draw(st.sampled_from(["ct", "ct", "ct", "mri", "mri", "pet", None])),
            "organ": draw(st.sampled_from(["head", "head", "chest"])),
            "confidence": draw(st.sampled_from([0.05, 0.5, 0.95, 0.95])),
        }
        made.append(outcome(case, right, "north", kind, **labels, **more))
    return made


def everything(rows: list[Outcome]) -> list[Outcome]:
    """The same as answered by a second configuration, and the multiple choice by a third."""
    wrong = [replace(row, configuration="base", correct=0.0) for row in rows]
    return [*rows, *wrong, *(replace(row, configuration="text_only") for row in rows if row.choice)]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_without_a_least_the_scores_are_those_of_the_answers_themselves(rows: list[Outcome]) -> None:
    document, sums = shared(rows)
    found = details([(document, sums)], 0)["scores"]
    expected = list(score_entries("x", align({"x": {0: rows}}, "x")["x"], 1))
    assert [{name: each[name] for name in found[0] if name in each} for each in expected] == found


@settings(max_examples=100, deadline=None)
@given(cases())
def test_nothing_is_told_of_few_cases_nor_follows_by_subtraction(rows: list[Outcome]) -> None:
    document, sums = shared(everything(rows), LEAST)
    found = details([(document, sums)], 0)
    assert not any(0 < entry["n"] < LEAST for entry in found["scores"])
    assert not any(0 < each["n"] < LEAST for of in found["calibration"].values() for each in of["bins"])
    for tally in document["tallies"].values():
        counts = [tally[kind]["n"] for kind in ("closed", "open", "choice")]
        gold = Counter[str]()
        for label, _, count in tally["closed"]["confusion"]:
            gold[label] += count
        rest = tally["closed"]["n"] - tally["choice"]["n"]
        assert not any(0 < count < LEAST for count in (*counts, *gold.values(), rest))
    of = {(each["configuration"], each["measure"], each["group"], each["value"]): each["n"] for each in found["scores"]}
    for measure in ("correct", "closed_accuracy", "open_exact_match"):
        for group in SHARED_GROUPS:
            values = sum(n for (name, what, where, _), n in of.items() if (name, what, where) == ("x", measure, group))
            assert not 0 < of.get(("x", measure, "all", None), 0) - values < LEAST


@settings(max_examples=30, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_the_cases_can_be_told(rows: list[Outcome], rng: random.Random) -> None:
    names = list(range(1000, 1100))
    rng.shuffle(names)
    renamed = {row.case: names[row.case] for row in rows}
    images = {row.image: names[row.image] for row in rows}
    other = [replace(row, case=renamed[row.case], image=images[row.image]) for row in rows]
    rng.shuffle(other)
    one, two = share(rows, LEAST), share(other, LEAST)
    assert one.sums == two.sums
    assert one.withheld == two.withheld
    assert all({"case", "image"}.isdisjoint({*asdict(row), *row.sums}) for row in one.sums)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_rows_are_in_the_order_of_what_they_show(rows: list[Outcome]) -> None:
    """Sorted by what they hide, they would tell something of it."""
    places: dict[tuple[Any, ...], list[list[float]]] = {}
    for row in share(rows, LEAST).sums:
        figures = [figure for column in reversed(ORDER) if (figure := row.sums[column]) is not None]
        assert set(row.sums) == set(ORDER)
        places.setdefault((row.configuration, row.group, row.value), []).append(figures)
    for found in places.values():
        assert len({len(each) for each in found}) == 1
        assert found == sorted(found)


def test_a_tables_own_words_do_not_leave() -> None:
    words = {"modality": "Jane Roe", "organ": "jane's left knee", "topic": "ask Jane", "site": "Roe Ward"}
    rows = [Case(f"t:{n}", f"i{n}", "Is it Jane?", "yes", "closed", "test", "table", "en", **words) for n in range(9)]
    answers = [Prediction("fed", each.id, "north", "closed", each.question, "yes", "Jane Roe", ()) for each in rows]
    sharing = share(outcomes(answers, [judge(each) for each in answers], rows), LEAST)
    assert {(row.group, row.value) for row in sharing.sums} == {
        ("all", None), ("dataset", "table"), ("modality", "other"), ("organ", "other"), ("topic", "other")
    }  # fmt: skip
    assert "jane" not in f"{sharing}".lower()
    summary: dict[str, Any] = {name: {"a": 9} for name in ("dataset", "split", "kind", "language", "captions_by_split")}
    summary |= {"modality": {"jane roe": 4, "ct": 9, "not stated": 7, "roe": 1}, "organ": {"jane": 2}, "cases": 21}
    found = dataset_counts(summary, LEAST)
    assert found["modality"] == {"other": 5, "ct": 9, "not stated": 7}
    assert (found["organ"], found["cases"]) == ({"other": "withheld"}, 21)


def few_of_some() -> list[Outcome]:
    """Twelve closed questions (two of them `no`) about CT and MRI, and three open ones."""
    closed = [
        outcome(n, 1, "north", gold=int(n > 9), predicted=int(n > 9), modality="ct" if n < 9 else "mri")
        for n in range(12)
    ]
    return closed + [outcome(20 + n, 1, "north", "open", modality="ct", confidence=None) for n in range(3)]


def test_what_is_withheld_is_named_without_a_count() -> None:
    sharing = share(few_of_some(), LEAST)
    assert sharing.withheld == {
        "questions": ["open"], "labels": True, "groups": {"modality": ["ct", "mri"]}, "by_kind": {},
    }  # fmt: skip
    tally = sharing.tallies["x"]
    assert (tally["closed"]["n"], tally["closed"]["correct"], tally["open"]["n"]) == (12, 12, 0)
    assert tally["closed"]["confusion"] == [("(untold)", "(untold)", 12)]
    table = score_table([{"hospital": "north", "tallies": sharing.tallies, "withheld": sharing.withheld}])["x"]
    assert table["closed"]["f1_macro"] is None
    assert table["hospitals"]["north"]["withheld"] == ["open"]
    found = held_back(LEAST, SharedDocuments([{"hospital": "north", "tallies": {}, "withheld": sharing.withheld}]))
    assert held_back_rows(found)[1] == (
        "north", "open questions; labels of closed questions; modality: ct; modality: mri"
    )  # fmt: skip
    assert "fewer than 5" in held_back_sentence(found)
    assert "nothing had to be" in held_back_sentence(held_back(LEAST, SharedDocuments([])))
    assert not any(character.isdigit() for row in held_back_rows(found)[1:] for character in row[1])


def test_others_that_tell_nothing_are_named_too() -> None:
    silent: dict[str, Any] = {"hospital": "a", "n": None, "modes": {}}
    few = {"hospital": "b", "n": 9, "modes": {"m": {"cases": None, "of": 9}, "k": {"cases": 0, "of": 9}}}
    nothing = {"questions": ["choice"], "labels": False, "groups": {}, "by_kind": {"topic": ["size"]}}
    relied = {"hospital": "b", "withheld": {"questions": ["closed"]}}
    shared = SharedDocuments([{"hospital": "c", "withheld": nothing}], [relied], [silent, few], [silent],
                             [{"hospital": "c", "withheld": ["open"]}])  # fmt: skip
    found = held_back(5, shared)
    assert found["hospitals"] == {
        "c": ["which are multiple choice", "topic by kind: size", "open questions answered and withheld"],
        "b": ["closed questions with altered prompts", "failure mode: m"],
        "a": ["failure modes", "where answers come from"],
    }


def test_a_hospital_with_too_few_cases_of_any_kind_tells_nothing() -> None:
    sharing = share([outcome(n, 1, "north", modality="ct") for n in range(4)], LEAST)
    assert not sharing.sums and not sharing.calibration
    assert sharing.tallies == {"x": summarise([]).to_json()}
    assert "4" not in json.dumps(sharing.withheld)
    assert summarise([OpenRow(outcome(0, 0, kind="open").scores)]).labelled
