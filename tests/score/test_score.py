"""Scores against sacrebleu, rouge-score and scikit-learn called plainly, and properties of any set of answers."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sklearn.metrics import accuracy_score, f1_score

from tasks.records import Kind
from tasks.score.overlap import bleu_signatures
from tasks.score.score import (
    OTHER,
    ClosedRow,
    OpenRow,
    Row,
    Tally,
    pool,
    score_row,
    scores,
    summarise,
)
from tasks.text.meaning import meaning
from tasks.text.normalise import normalise
from tasks.text.options import distinct

VQA_RAD = Path("../shared/datasets/vqa-rad-osf/VQA_RAD Dataset Public.json")

METRICS = ("exact_match", "bleu", "rouge_l", "token_recall", "f1")
WORDS = st.sampled_from(["left", "lung", "right", "mass", "yes", "no", "2", "effusion"])
ANSWERS = st.lists(WORDS, max_size=7).map(" ".join)
CHARACTERS = st.text(st.sampled_from("左右肺心脏肿瘤"), min_size=1, max_size=8)
KINDS = st.sampled_from(["closed", "open"])
LABELS = st.sampled_from(["yes", "no", "left lung"])
PREDICTED = LABELS | st.sampled_from(["(neither)", "(other)"])
CLOSED_ROWS = st.lists(st.builds(ClosedRow, LABELS, PREDICTED), min_size=1, max_size=40)
OPTIONS = st.sampled_from([("left lung", "mass"), ("yes", "no", "right")])
CHOSEN = st.builds(score_row, ANSWERS, ANSWERS, st.just("closed"), OPTIONS)
ROWS = st.lists(st.builds(score_row, ANSWERS, ANSWERS, KINDS) | CHOSEN, max_size=30)


def closed(prediction: str, reference: str) -> ClosedRow:
    row = score_row(prediction, reference, "closed")
    assert isinstance(row, ClosedRow)
    return row


def opened(prediction: str, reference: str) -> Mapping[str, float]:
    row = score_row(prediction, reference, "open")
    assert isinstance(row, OpenRow)
    return row.scores


@pytest.mark.parametrize(
    ("prediction", "reference", "gold", "predicted"),
    [
        ("Yes", "yes", "yes", "yes"),
        ("Yes, there is a mass.", "Yes", "yes", "yes"),
        ("no", "Yes", "yes", "no"),
        ("yes and no", "yes", "yes", "(neither)"),
        ("maybe", "no", "no", "(neither)"),
        ("Left side", "left side.", "left side", "left side"),
        ("right side", "left side", "left side", "(other)"),
        ("no", "left side", "left side", "no"),
        ("no left side", "left side", "left side", "(other)"),
        ("A", "A", "a", "a"),
        ("B", "A", "a", "(other)"),
        ("包含", "不包含", "no", "yes"),
        ("没有，看不到肿瘤", "没有", "no", "no"),
        ("是的，有肿瘤", "有", "yes", "yes"),
        ("不知道", "不是", "no", "(neither)"),
        ("Yes", "是", "yes", "yes"),
        ("正常", "不正常", "不正常", "(other)"),
        ("", "left side", "left side", "(other)"),
        ("", "yes", "yes", "(neither)"),
    ],
)
def test_closed_labels(prediction: str, reference: str, gold: str, predicted: str) -> None:
    row = closed(prediction, reference)
    assert (row.gold, row.predicted, row.correct) == (gold, predicted, gold == predicted)


@pytest.mark.parametrize("prediction", ["", "unknown", "normal", "not sure", "cannot know, eyes", "yes or no"])
@pytest.mark.parametrize("reference", ["yes", "no"])
def test_no_credit_for_substrings(prediction: str, reference: str) -> None:
    assert not closed(prediction, reference).correct


@settings(deadline=None)
@given(st.lists(st.text("abcdef", min_size=2, max_size=4), min_size=2, max_size=8, unique=True), st.randoms())
def test_scrambled_words_are_not_a_perfect_answer(words: list[str], random: Random) -> None:
    words = [word for word in words if normalise(word) == word]
    scrambled = list(words)
    random.shuffle(scrambled)
    assume(scrambled != words)
    row = opened(" ".join(scrambled), " ".join(words))
    assert row["exact_match"] == 0
    assert row["bleu"] < 1
    assert row["rouge_l"] < 1
    assert row["token_recall"] == 1


@settings(deadline=None)
@given(st.text(st.characters()), KINDS)
@example("*", "closed")
@example("`", "open")
def test_a_perfect_answer_scores_one(reference: str, kind: Kind) -> None:
    assume(meaning(reference))  # a reply of special tokens alone, as <|end|>, answers nothing
    assert all(value == 1 for value in figures([score_row(reference, reference, kind)], kind))


@pytest.mark.parametrize(
    "reference", ["A", "the", "+", "?", "<skipped>", "&quot;", "\u200b", "5%", "左肺，右侧", "\ud800"]
)
@pytest.mark.parametrize("kind", ["closed", "open"])
def test_a_perfect_answer_to_an_odd_reference(reference: str, kind: Kind) -> None:
    assert all(value == 1 for value in figures([score_row(reference, reference, kind)], kind))


@settings(deadline=None)
@given(st.text(st.characters()), st.sampled_from(["", " ", "\n\t", "\u3000"]), KINDS)
def test_a_blank_answer_scores_nothing(reference: str, blank: str, kind: Kind) -> None:
    assert all(value == 0 for value in figures([score_row(blank, reference, kind)], kind))


@settings(deadline=None)
@given(st.text(st.characters()), st.text(st.characters()), KINDS)
def test_any_two_strings_can_be_scored(prediction: str, reference: str, kind: Kind) -> None:
    assert all(0 <= value <= 1 for value in figures([score_row(prediction, reference, kind)], kind))


def figures(rows: list[Row], kind: Kind) -> list[float]:
    """The figures of one kind, without the denominator."""
    return [value for name, value in scores(summarise(rows))[kind].items() if name != "n" and value is not None]


@settings(deadline=None)
@given(ANSWERS, ANSWERS)
def test_open_scores_against_the_libraries(prediction: str, reference: str) -> None:
    assume(prediction and reference)
    row = opened(prediction, reference)
    bleu = BLEU(effective_order=True).sentence_score(prediction, [reference]).score / 100
    rouge = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert row["exact_match"] == (prediction == reference)
    assert row["bleu"] == pytest.approx(bleu, abs=1e-9)
    assert row["rouge_l"] == pytest.approx(rouge, abs=1e-9)
    assert row["token_recall"] == pytest.approx(recall(prediction.split(), reference.split()), abs=1e-9)


@settings(deadline=None)
@given(CHARACTERS, CHARACTERS)
def test_chinese_is_scored_by_character(prediction: str, reference: str) -> None:
    row = opened(prediction, reference)
    bleu = BLEU(effective_order=True, tokenize="zh").sentence_score(prediction, [reference]).score / 100
    as_words = [" ".join(f"u{ord(character)}" for character in text) for text in (reference, prediction)]
    rouge = RougeScorer(["rougeL"]).score(*as_words)["rougeL"].fmeasure
    assert row["bleu"] == pytest.approx(bleu, abs=1e-9)
    assert row["rouge_l"] == pytest.approx(rouge, abs=1e-9)
    assert row["token_recall"] == pytest.approx(recall(list(prediction), list(reference)), abs=1e-9)


def recall(answer: list[str], gold: list[str]) -> float:
    """Token recall by crossing out, one answer token for each reference token."""
    left, found = list(answer), 0
    for token in gold:
        if token in left:
            left.remove(token)
            found += 1
    return found / len(gold)


def test_open_scores_by_hand() -> None:
    row = opened("the left lung lung", "left upper lung")
    assert row["exact_match"] == 0
    assert row["token_recall"] == pytest.approx(2 / 3)
    assert row["rouge_l"] == pytest.approx(2 / 3)
    # 1-grams 2 of 3; 2-grams 0 of 2, smoothed to 1/2 of one; 3-grams 0 of 1, smoothed to 1/4 of one.
    assert row["bleu"] == pytest.approx((2 / 3 * 1 / 4 * 1 / 4) ** (1 / 3))


def test_bleu_signatures_name_the_settings() -> None:
    western, chinese = bleu_signatures()
    assert "eff:yes|tok:13a|smooth:exp" in western
    assert "eff:yes|tok:zh|smooth:exp" in chinese


@settings(deadline=None)
@given(CLOSED_ROWS)
def test_closed_figures_against_scikit_learn(rows: list[ClosedRow]) -> None:
    gold, predicted = [row.gold for row in rows], [row.predicted for row in rows]
    result = scores(summarise(rows))["closed"]
    assert result["n"] == len(rows)
    assert result["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    macro = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert result["f1_macro"] == pytest.approx(macro)


@settings(deadline=None)
@given(ROWS)
def test_open_figures_are_means(rows: list[Row]) -> None:
    answered = [row for row in rows if isinstance(row, OpenRow)]
    result = scores(summarise(rows))["open"]
    assert result["n"] == len(answered)
    for metric in METRICS:
        values = [row.scores[metric] for row in answered]
        assert result[metric] == (pytest.approx(sum(values) / len(values)) if values else None)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_pooled_tallies_equal_the_tally_of_all_rows(hospitals: list[list[Row]]) -> None:
    together = summarise(row for rows in hospitals for row in rows)
    pooled = pool(summarise(rows) for rows in hospitals)
    assert pooled == together
    assert scores(pooled) == scores(together)


@settings(deadline=None)
@given(ROWS, st.randoms())
def test_order_does_not_matter(rows: list[Row], random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert summarise(shuffled) == summarise(rows)
    assert json.dumps(summarise(shuffled).to_json()) == json.dumps(summarise(rows).to_json())


@settings(deadline=None)
@given(ROWS)
def test_json_round_trip(rows: list[Row]) -> None:
    tally = summarise(rows)
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_a_tally_holds_no_open_answer() -> None:
    tally = summarise([score_row("secret words", "hidden words", "open"), score_row("yes", "no", "closed")])
    text = json.dumps(tally.to_json())
    assert "secret" not in text
    assert "hidden" not in text
    assert tally.to_json()["closed"] == {"n": 1, "correct": 0, "confusion": [("no", "yes", 1)]}


def test_multiple_choice_is_judged_by_the_option_named() -> None:
    options = ("PET scan", "CT scan", "Blood test.", "Fundus imaging")
    replies = ["D", "fundus imaging.", "It shows Fundus Imaging", "(d) fundus imaging", "CT scan", "no idea", ""]
    rows = [score_row(reply, "Fundus imaging", "closed", options) for reply in replies]
    assert [row.correct for row in rows if isinstance(row, ClosedRow)] == [True] * 4 + [False] * 3
    assert {row.predicted for row in rows[4:] if isinstance(row, ClosedRow)} == {OTHER}
    together = scores(summarise([*rows, score_row("no", "no", "closed"), score_row("lung", "lung", "open")]))
    assert together["choice"] == {"n": 7, "accuracy": 4 / 7}
    assert together["closed"]["n"] == 8
    assert together["closed"]["accuracy"] == 5 / 8
    # A letter is no answer where options are none.
    assert score_row("D", "Fundus imaging", "closed") == ClosedRow("fundus imaging", OTHER)
    assert score_row("B", "yes", "closed", ("Yes", "No")) == ClosedRow("yes", "no", choice=True)


def test_a_reference_letter_counts_options_as_published_and_an_answer_as_shown() -> None:
    options = ("MRI", "mri", "CT", "PET")  # shown as A. MRI, B. CT, C. PET
    rows = {reply: score_row(reply, "D", "closed", options).correct for reply in ("A", "B", "C", "D", "PET")}
    assert rows == {"A": False, "B": False, "C": True, "D": False, "PET": True}


@given(st.text(max_size=9), st.text(max_size=9), st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_any_option_is_right_for_itself_alone(reply: str, reference: str, options: list[str]) -> None:
    row = score_row(reply, reference, "closed", options)
    assert isinstance(row, ClosedRow)
    assert row.choice
    for number, option in enumerate(kept := distinct(options)):
        judged = [score_row(option, other, "closed", options) for other in kept]
        right = [place for place, each in enumerate(judged) if isinstance(each, ClosedRow) and each.correct]
        assert right == [number]


def test_no_rows_give_no_figures() -> None:
    empty = {
        "closed": {"n": 0, "accuracy": None, "f1_macro": None},
        "open": {"n": 0, **dict.fromkeys(METRICS)},
        "choice": {"n": 0, "accuracy": None},
    }
    assert scores(summarise([])) == scores(pool([])) == empty


def test_published_references_score_one_against_themselves() -> None:
    if not VQA_RAD.exists():
        pytest.skip(f"{VQA_RAD} is not on this machine")
    kinds: Counter[str] = Counter()
    rows = []
    for case in json.loads(VQA_RAD.read_text(encoding="utf-8")):
        kind: Kind = "closed" if case["answer_type"].strip() == "CLOSED" else "open"
        kinds[kind] += 1
        rows.append(score_row(str(case["answer"]), str(case["answer"]), kind))
    assert all(
        row.correct if isinstance(row, ClosedRow) else row == OpenRow(dict.fromkeys(METRICS, 1.0)) for row in rows
    )
    perfect = {"n": kinds["open"], **dict.fromkeys(METRICS, 1)}
    assert scores(summarise(rows)) == {
        "closed": {"n": kinds["closed"], "accuracy": 1, "f1_macro": 1},
        "open": perfect,
        "choice": {"n": 0, "accuracy": None},
    }
