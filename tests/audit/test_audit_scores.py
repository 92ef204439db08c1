"""What a dataset gives away without a model: against a search and a count spelled out here."""

from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.audit.document import score_table
from tasks.audit.questions import question_rows
from tasks.audit.scores import WIDTH, _projected, score_without_model
from tasks.records import Case
from tasks.score.baselines import question_only

WORDS = ("mass", "lung", "is", "ab", "x")


def case(name: str, image: str, question: str, answer: str, split: str = "train") -> Case:
    kind = "closed" if answer in ("yes", "no") else "open"
    return Case(name, image, question, answer, kind, split, "d", "en")  # type: ignore[arg-type]


def grams(question: str) -> Counter[str]:
    """Each word's three to five characters, a blank before and after it; a shorter word as a whole, once."""
    found: Counter[str] = Counter()
    for word in question.split():
        padded = f" {word} "
        for size in (3, 4, 5):
            found.update(padded[at : at + size] for at in range(max(1, len(padded) - size + 1)))
            if size >= len(padded):
                break
    return found


QUESTIONS = st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), min_size=1, max_size=5)


@settings(deadline=None)
@given(QUESTIONS)
def test_questions_are_compared_by_tf_idf_of_their_words_characters(questions: list[str]) -> None:
    """Written out: logarithmic counts, by how rare an n-gram is, at length 1."""
    counts = [grams(question) for question in questions]
    known = sorted(set().union(*counts))
    rarity = {gram: log((1 + len(counts)) / (1 + sum(gram in each for each in counts))) + 1 for gram in known}
    rows = np.array([[(1 + log(each[g])) * rarity[g] if each[g] else 0.0 for g in known] for each in counts])
    rows = rows.reshape(len(counts), -1)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = question_rows([case(f"{n}", "i", each, "a") for n, each in enumerate(questions)]).toarray()
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=1e-9)


def test_many_n_grams_are_projected_and_keep_their_cosines() -> None:
    chooser = np.random.default_rng(0)
    letters = [chr(97 + n) for n in range(26)]
    words = ["".join(chooser.choice(letters, 7)) for _ in range(120)]
    cases = [case(f"{n}", "i", " ".join(chooser.choice(words[: 10 + n], 8)), "a") for n in range(60)]
    exact = question_rows(cases).toarray()
    assert exact.shape[1] > WIDTH
    rows = _projected(cases, 0)
    assert rows.shape == (60, WIDTH) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    off = np.abs(rows @ rows.T - exact @ exact.T)[~np.eye(60, dtype=bool)]
    assert 0.03 < np.sqrt(np.mean(off**2)) < 0.09
    assert np.array_equal(rows, _projected(cases, 0)) and not np.array_equal(rows, _projected(cases, 1))
    few = [case("1", "i", "mass", "a"), case("2", "i", "lung", "a"), case("3", "i", " ", "a")]
    np.testing.assert_allclose(_projected(few, 0) @ _projected(few, 0).T, np.diag([1, 1, 0]), atol=1e-6)


ROWS = st.lists(
    st.tuples(st.sampled_from(WORDS), st.integers(0, 4), st.sampled_from(["yes", "no", "Left lung", "liver", ""])),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS, st.integers(0, 3))
def test_the_nearest_answer_is_copied_and_counted(trained: list, tested: list, seed: int) -> None:
    """Of the training cases nearest by image and question, with and without those of the image; ties may go any way."""
    train = [case(f"a{n}", f"i{i}", word, answer) for n, (word, i, answer) in enumerate(trained)]
    test = [case(f"b{n}", f"i{i}", word, answer, "test") for n, (word, i, answer) in enumerate(tested)]
    chooser = np.random.default_rng(seed)
    images = {
        f"i{n}": row / np.linalg.norm(row) for n, row in enumerate(chooser.normal(size=(4, 6)).astype(np.float32))
    }
    copy_class = {f"i{n}": f"i{n}" for n in range(5)} | {"i3": "i2"}  # a copy; i4 is blank and has no shape
    words = question_rows([*train, *test]).toarray()
    found = score_without_model(train, test, images, copy_class, seed)
    for name, others in {"with_same_image": False, "without_same_image": True}.items():
        least, most, counts = Counter[str](), Counter[str](), Counter[str]()
        for place, each in enumerate(test):
            near = [
                float(words[n] @ words[len(train) + place])
                + float(images.get(one.image_id, np.zeros(6)) @ images.get(each.image_id, np.zeros(6)))
                for n, one in enumerate(train)
            ]
            left = [
                n for n, one in enumerate(train) if not others or copy_class[one.image_id] != copy_class[each.image_id]
            ]
            best = [n for n in left if near[n] > max(near[m] for m in left) - 1e-4]
            right = [train[n].answer.lower() == each.answer.lower() != "" for n in best] or [False]
            least[each.kind], most[each.kind] = least[each.kind] + all(right), most[each.kind] + any(right)
            counts[each.kind] += 1
        for kind in ("closed", "open"):
            share = found["copy_nearest"][name][kind]
            assert share["n"] == counts[kind]
            assert (
                share["correct"] is None
                if not share["n"]
                else (least[kind] - 1e-3 <= share["correct"] * share["n"] <= most[kind] + 1e-3)
            )
    guessed = question_only(train, test, seed)
    for kind in ("closed", "open"):
        of = [(each, guess) for each, guess in zip(test, guessed, strict=True) if each.kind == kind]
        right = sum(each.answer.lower() == guess.lower() != "" for each, guess in of)
        assert found["question_only"][kind] == {"n": len(of), "correct": round(right / len(of), 4) if of else None}
    assert set(found) - set(found["definitions"]) == {"definitions"}


def test_shares_are_told_as_rows() -> None:
    """On a test question asked of its own training image, one of a copy, and one that only another image answers."""
    train = [case("1", "a", "mass", "yes"), case("2", "b", "mass", "no"), case("3", "c", "lung", "Left lung.")]
    test = [
        case("4", "a", "mass", "yes", "test"),
        case("5", "b2", "mass", "no", "test"),
        case("6", "d", "lung", "left LUNG", "test"),
    ]
    images = {name: np.eye(4, dtype=np.float32)[n] for n, name in enumerate(("a", "b", "c", "d"))}
    images["b2"] = images["b"]
    copy_class = {name: name for name in images} | {"b2": "b"}
    found = score_without_model(train, test, images, copy_class, 0)
    assert found["copy_nearest"] == {
        "with_same_image": {"closed": {"n": 2, "correct": 1.0}, "open": {"n": 1, "correct": 1.0}},
        "without_same_image": {"closed": {"n": 2, "correct": 0.0}, "open": {"n": 1, "correct": 1.0}},
    }
    rows = score_table({"scores": found})
    assert rows[:2] == [
        {"score": "nearest answer copied", "closed": "1.000", "open": "1.000"},
        {"score": "the same, of another image", "closed": "0.000", "open": "1.000"},
    ]
    assert rows[2]["score"] == "question only"
    few = score_table({"scores": found}, least=2)
    assert [row["open"] for row in few] == ["withheld"] * 3 and few[0]["closed"] == "1.000"
    closed = score_without_model(train, test[:2], images, copy_class, 0)
    assert [row["open"] for row in score_table({"scores": closed})] == ["-"] * 3


def test_many_questions_of_an_image_do_not_hide_the_other_images() -> None:
    """All nearest are of the image itself, however many they are."""
    train = [case(f"{n}", "a", "mass", "yes") for n in range(40)] + [case("far", "b", "lung", "no")]
    test = [case("t", "a", "mass", "no", "test")]
    images = {"a": np.array([1, 0], np.float32), "b": np.array([0, 1], np.float32)}
    found = score_without_model(train, test, images, {"a": "a", "b": "b"}, 0)["copy_nearest"]
    assert found["with_same_image"]["closed"] == {"n": 1, "correct": 0.0}
    assert found["without_same_image"]["closed"] == {"n": 1, "correct": 1.0}
    alone = score_without_model(train[:40], [replace(test[0], answer="yes")], images, {"a": "a"}, 0)["copy_nearest"]
    assert alone["without_same_image"]["closed"] == {"n": 1, "correct": 0.0}


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_training_or_test_cases_there_are_no_scores(split: str) -> None:
    one = [case("1", "a", "mass", "yes", split)]
    train, test = (one, []) if split == "train" else ([], one)
    assert score_without_model(train, test, {}, {"a": "a"}, 0) == {}
