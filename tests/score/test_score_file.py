"""`fed-rag score`: predictions made elsewhere, scored line by line, and what is said of lines that cannot be read."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from command import shell
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sklearn.metrics import accuracy_score, f1_score

from tasks.errors import StudyError
from tasks.score.file import score_document
from tasks.score.lines import Line, read_lines
from tasks.score.metrics import answer_scores
from tasks.score.published import RULES, lightfed, lightfed_bleu, lightfed_rouge_l, llava_med_released
from tasks.text.normalise import normalise

SLAKE = Path("../shared/datasets/slake/train.json")
OURS = ("correct", "exact_match", "token_recall", "f1", "bleu", "rouge_l")
KINDS = st.sampled_from(["closed", "open"])
LINES = st.lists(
    st.builds(
        lambda prediction, answer, kind, image: Line(0, prediction, answer, kind, image=image),
        st.sampled_from(["yes", "no", "left lung", "Left Lung, Right", "", "右肺"]),
        st.sampled_from(["Yes", "no", "Left Lung, Right", "左肺"]),
        KINDS,
        st.sampled_from([None, "1", "2", "3"]),
    ),
    min_size=1,
    max_size=20,
)


def lines_of(folder: Path, *values: Any) -> Path:
    path = folder / "predictions.jsonl"
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")
    return path


def run(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("fed-rag")), "score", str(path)]
    return subprocess.run(command, env=shell(), capture_output=True, text=True)


def line(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "prediction": "Yes, it is", "answer": "yes", "kind": "closed"} | changes


def row_of(prediction: str, answer: str, kind: str, **other: Any) -> dict[str, Any]:
    return score_document([Line("a", prediction, answer, kind, **other)])["rows"][0]


def test_the_command_prints_json_alone(tmp_path: Path) -> None:
    path = lines_of(
        tmp_path,
        line(),
        line(id=7, prediction="left lung and right", answer="Left Lung, Right", kind="open", image="x"),
        line(id="c", prediction="(b)", answer="CT", options={"A": "MRI", "B": "CT"}),
        line(id="d", prediction=None, answer=2, kind="OPEN "),
    )
    done = run(path)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert [row["id"] for row in printed["rows"]] == ["a", 7, "c", "d"]
    assert [row["correct"] for row in printed["rows"]] == [True, True, True, False]
    assert (printed["summary"]["n"], printed["summary"]["accuracy"]) == (4, 0.75)
    assert printed["summary"]["closed"]["n"] == printed["summary"]["open"]["n"] == 2
    assert printed["summary"]["choice"] == {"n": 1, "accuracy": 1}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1], "expected a JSON object, found [1]; write"),
        ({"id": "a"}, "expected the field prediction, found"),
        (line(answer=None), "expected a text or a number as answer, found null; put it in quotes"),
        (line(answer=True), "found true; put it in quotes"),
        (line(prediction={"text": "x"}), "expected a text or a number as prediction"),
        (line(kind="both"), "expected closed or open as kind, found"),
        (line(options=["CT"]), "expected options as {"),
        (line(options={"A": "CT", "a": "MRI"}), "expected options as {"),
        (line(confidence=2), "expected a number from 0 to 1 as confidence, found 2"),
        (line(id=None), "expected a text or whole number as id, found null"),
        (line(id="b", prediction=float("nan")), "found NaN; write null for a missing prediction"),
        (line(id="b", answer=float("inf")), "found Infinity; write null"),
        (line(id="b", confidence=float("nan")), "found NaN"),
        (line(), "expected each id once, found that of line 1 again; keep one of the two"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, wrong: Any, said: str) -> None:
    path = lines_of(tmp_path, line(), wrong)
    with pytest.raises(StudyError) as caught:
        read_lines(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"id": 1e', b"[" * 100_000])
def test_what_is_no_json_is_named(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n" + raw + b"\n")
    with pytest.raises(StudyError, match="line 2: expected one JSON object in UTF-8"):
        read_lines(path)


def test_a_number_and_its_text_are_one_id_and_a_field_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="line 2: expected each id once, found that of line 1 again"):
        read_lines(lines_of(tmp_path, line(id=3), line(id="3")))
    path = tmp_path / "twice.jsonl"
    path.write_text('{"id": 1, "prediction": "no", "prediction": "yes", "answer": "yes", "kind": "closed"}\n')
    with pytest.raises(StudyError, match="line 1: expected each field once, found one twice"):
        read_lines(path)
    path.write_text('{"id": 1, "prediction": 1e999, "answer": "yes", "kind": "closed"}\n')
    with pytest.raises(StudyError, match="line 1: expected a number that can be held as prediction"):
        read_lines(path)


def test_numbers_are_compared_by_value(tmp_path: Path) -> None:
    pairs = [(2, 2.0), ("2", 2.0), (0.00001, "0.00001"), (-2, 2)]
    lines = [
        line(id=place, prediction=prediction, answer=reference) for place, (prediction, reference) in enumerate(pairs)
    ]
    scored = score_document(read_lines(lines_of(tmp_path, *lines)))
    assert [row["correct"] for row in scored["rows"]] == [True, True, True, False]


def test_flags_say_where_a_published_rule_differs() -> None:
    scored = score_document(
        [
            Line(1, "a", "left lateral", "closed"),  # in the reference, as LightFED asks
            Line(2, "yes and no", "no", "closed"),
            Line(3, "left", "left", "closed"),
            Line(4, "1.50", "1,5", "open"),
            Line(5, "", "mass", "open"),
        ]
    )
    flags = [[row[f"{rule}_differs"] for rule in RULES] for row in scored["rows"]]
    assert flags == [[True, False, False], [True, True, True], [False, False, True], [True, True, True], [False] * 3]
    assert scored["summary"]["differing"] == {"lightfed": 3, "llava_med": 2, "llava_med_released": 3}


def test_a_bad_file_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    path = lines_of(tmp_path, line(), {})
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{path}, line 2: expected the field id" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "empty.jsonl").touch()
    for name, said in {"none": "found No such file", "empty": "found an empty file"}.items():
        with pytest.raises(StudyError, match=f"{name}.jsonl, {said}"):
            read_lines(tmp_path / f"{name}.jsonl")


@settings(deadline=None)
@given(LINES, st.randoms())
def test_order_makes_no_difference(lines: list[Line], random: Random) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)
    one, other = score_document(lines), score_document(shuffled)
    assert json.dumps(one["summary"]) == json.dumps(other["summary"])
    assert sorted(map(json.dumps, one["rows"])) == sorted(map(json.dumps, other["rows"]))


@settings(deadline=None)
@given(st.text(), KINDS)
def test_a_perfect_answer_scores_one_and_an_empty_one_nothing(answer: str, kind: str) -> None:
    perfect, empty = row_of(answer, answer, kind), row_of("", answer, kind)
    if normalise(answer):
        assert all(perfect[name] == 1 for name in (*OURS, "lightfed", "llava_med"))
    assert not any(value for name, value in empty.items() if name not in ("id", "kind"))


@settings(deadline=None)
@given(st.text(), st.text(), KINDS, st.dictionaries(st.sampled_from("ABCD"), st.text(min_size=1), max_size=3))
def test_every_string_gets_a_score(prediction: str, answer: str, kind: str, options: dict[str, str]) -> None:
    row = row_of(prediction, answer, kind, options=options)
    assert all(0 <= value <= 1 for name, value in row.items() if name not in ("id", "kind"))
    json.dumps(row).encode("ascii")


def test_summary_against_the_libraries() -> None:
    rows = [("no", "yes"), ("yes", "yes"), ("no", "no"), ("Left", "left"), ("yes", "left")]
    opened = [("left lung mass", "left lung"), ("cyst", "mass"), ("mass", "mass")]
    lines = [Line(place, *each, "closed") for place, each in enumerate(rows)]
    lines += [Line(f"o{place}", *each, "open", confidence=0.5) for place, each in enumerate(opened)]
    summary = score_document(lines)["summary"]
    said, gold = [[each[place].lower() for each in rows] for place in (0, 1)]
    assert summary["accuracy"] == (3 + 1) / 8
    assert summary["closed"]["accuracy"] == accuracy_score(gold, said)
    assert summary["closed"]["f1_macro"] == pytest.approx(f1_score(gold, said, average="macro"))
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(reference, answer)["rougeL"].fmeasure for answer, reference in opened]
    assert summary["open"]["rouge_l"] == pytest.approx(sum(rouge) / 3)
    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(answer, [reference]).score / 100 for answer, reference in opened]
    assert summary["open"]["bleu"] == pytest.approx(sum(scores) / 3)
    assert summary["open"]["f1"] == pytest.approx((2 * 2 / 5 + 0 + 1) / 3)
    assert summary["calibration"]["n"] == 3
    assert summary["calibration"]["ece"] == pytest.approx(0.5 - 1 / 3)
    low, high = summary["intervals"]["closed"]["accuracy"]
    assert 0 <= low < 0.6 < high <= 1
    assert summary["intervals"]["choice"]["accuracy"] is None


def test_options_keep_the_letters_they_were_given() -> None:
    options = {"B": "MRI", "C": "CT", "D": "ct."}
    judged = {reply: row_of(reply, "C", "closed", options=options)["correct"] for reply in "ABCD"}
    assert judged == {"A": False, "B": False, "C": True, "D": True}
    assert row_of("It is a CT scan", "ct", "closed", options=options)["correct"]
    assert not row_of("MRI or CT", "ct", "closed", options=options)["correct"]
    assert row_of("PET", "PET", "closed", options=options)["correct"]  # the published options lack it


def test_lists_are_in_order() -> None:
    for right in ("left lung, right", "Left Lung and Right", "Left lung; right.", "left lung & right"):
        assert row_of(right, "Left Lung, Right", "open")["exact_match"] == 1
    for wrong in ("Right, Left Lung", "Left Lung", "Left Lung, Right, Heart", "left, right lung"):
        assert row_of(wrong, "Left Lung, Right", "open")["exact_match"] == 0
    assert row_of("左肺和右侧", "左肺、右侧", "open")["exact_match"] == 1
    assert row_of("右侧，左肺", "左肺、右侧", "open")["exact_match"] == 0
    assert row_of("1,000", "1000", "open")["exact_match"] == 1


def test_published_rules_by_hand() -> None:
    assert lightfed("It is on the left", "left") == 1
    assert lightfed("a", "left lateral") == 1  # as published
    for kind in ("closed", "open"):
        assert not any(answer_scores("", "left", kind).values()) and not llava_med_released("", "left", kind)
    assert lightfed_bleu("lung left left", "left lung") == pytest.approx(2 / 3)
    assert lightfed_rouge_l("lung left left", "left lung") == 1
    assert lightfed_bleu("left", "left lung") == pytest.approx(1 / 2.718281828)
    # LLaVA-Med counts what the answer repeats: three lefts found, one lung missed.
    assert answer_scores("left left left", "left lung", "open")["llava_med"] == pytest.approx(3 / 4)
    assert answer_scores("yes and no", "no", "closed")["llava_med"] == 1  # as published
    assert answer_scores("left", "left", "closed")["llava_med"] == 1
    assert llava_med_released("left", "left", "closed") == 0


def test_every_published_answer_in_both_languages_is_right_for_itself() -> None:
    if not SLAKE.exists():
        pytest.skip(f"{SLAKE} is not on this machine")
    pairs = {(str(row["answer"]), row["answer_type"].strip().lower()) for row in json.loads(SLAKE.read_text("utf-8"))}
    for answer, kind in pairs:
        if answer.strip():
            assert row_of(answer, answer, kind)["correct"], answer
