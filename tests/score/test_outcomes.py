"""What is shared of each answer says what was answered: labels, and scores by every rule, none of them turned round."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.answer.step import score_as_lightfed
from tasks.records import Case, Kind, Outcome, Prediction, write_table
from tasks.score.file import score_document
from tasks.score.labels import LABELS
from tasks.score.lines import Line
from tasks.score.outcomes import judge, outcomes
from tasks.score.score import ClosedRow
from tasks.score.statistics import label_counts, macro_f1
from tasks.store import writing

TEXTS = st.sampled_from(["yes", "no", "No.", "Yes, it is", "left lung", "x-ray", "maybe", "", "是"])


def answer(number: int, prediction: str, reference: str, kind: Kind, configuration: str = "fed") -> Prediction:
    return Prediction(configuration, f"d:{number}", "north", kind, "Is it?", reference, prediction, ())


def shared(answers: list[Prediction]) -> list[Outcome]:
    cases = [Case(row.case_id, "i", "Is it?", row.reference, row.kind, "test", "d", "en") for row in answers]
    return outcomes(answers, [judge(row) for row in answers], cases)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12))
def test_shared_labels_are_the_judgements_under_other_names(pairs: list[tuple[str, str]]) -> None:
    answers = [answer(number, *pair, "closed") for number, pair in enumerate(pairs)]
    rows = [row for row in map(judge, answers) if isinstance(row, ClosedRow)]
    judged = shared(answers)
    for one, two in zip(judged, rows, strict=True):
        assert one.gold is not None and one.predicted is not None
        assert (one.gold == one.predicted) == (two.gold == two.predicted)
        assert LABELS[one.gold] == (two.gold if two.gold in ("yes", "no") else "another")
        if two.predicted in ("yes", "no"):
            assert LABELS[one.predicted] == two.predicted
    assert [row.correct for row in judged] == [float(row.gold == row.predicted) for row in rows]


def test_an_answer_is_of_an_image_like_one_of_training_or_not() -> None:
    asked = Prediction("fed", "d:0", "north", "closed", "Is it?", "yes", "yes", ())
    cases = [Case("d:0", "i", "Is it?", "yes", "closed", "test", "d", "en")]
    for copied, expected in ((None, None), (set(), "none alike"), ({"i"}, "alike"), ({"j"}, "none alike")):
        (outcome,) = outcomes([asked], [judge(asked)], cases, copied)
        assert outcome.training_image == expected


def test_macro_f1_of_what_is_shared_is_that_of_the_answers() -> None:
    """Two yeses of two are found, and one more is said; the one no is missed: F1 4/5 and 0."""
    said = [("yes", "yes"), ("Yes, it is", "yes"), ("yes", "no"), ("perhaps", "no")]
    judged = shared([answer(number, *pair, "closed") for number, pair in enumerate(said)])
    counts = label_counts([row.gold for row in judged], [row.predicted for row in judged])
    assert macro_f1(counts.sum(axis=0)[None])[0] == pytest.approx((4 / 5 + 0) / 2)


def test_every_rule_takes_the_answer_for_the_answer() -> None:
    """By hand, of four words that hold both that were asked for; turned round, each score would be another."""
    (outcome,) = shared([answer(0, "the left lung is", "left lung", "open")])
    assert [outcome.scores[field] for field in ("token_recall", "llava_med", "lightfed_rouge_l")] == [1, 1, 1]
    assert outcome.scores["lightfed_bleu"] == 0.5
    lines = [
        Line(0, "the left lung is", "left lung", "open"),
        Line(1, "yes it is", "yes", "closed"),
        Line(2, "yes", "yes it is", "closed"),
    ]
    rows = score_document(lines)["rows"]
    assert [row["llava_med_released"] for row in rows] == [1, 1, 0]
    assert rows[0].items() >= outcome.scores.items()
    assert judge(answer(0, "no", "yes", "closed")) == ClosedRow("yes", "no")


def test_lightfeds_figures_are_of_each_configurations_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = {"fed": ("the left lung is", "left lung"), "base": ("left lung", "the left lung is")}
    with writing("hospitals/north", "predictions", "0") as folder, folder.open("predictions.parquet") as sink:
        write_table(sink, Prediction, [answer(0, *pair, "open", name) for name, pair in pairs.items()])
    made = score_as_lightfed.fn(predictions=[folder.ref])
    scores = json.loads((made.folder / "lightfed.json").read_text())
    assert {name: row["ROUGE-L"] for name, row in scores.items()} == {"fed": 1, "base": 0.5}
    assert scores["fed"]["BLEU"] == 0.5
