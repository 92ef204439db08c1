"""Questions that training has seen, on real rows whose makers say which restate which."""

import json
from collections import defaultdict
from typing import Any

import pytest
from ingest_samples import real

from tasks.audit.questions import questions_seen
from tasks.ingest.vqa_rad import read
from tasks.records import Case
from tasks.text.normalise import normalise


def case(name: str, question: str, answer: str, image: str = "i", **fields: Any) -> Case:
    kind = "closed" if answer in ("yes", "no") else "open"
    return Case(
        name, image, question, answer, **{"kind": kind, "split": "train", "dataset": "d", "language": "en"} | fields
    )


def test_same_restated_and_repeated_are_told_apart() -> None:
    train = [
        case("same", "Is the heart enlarged?", "yes"),
        case("template", "Is/Are the heart enlarged in this film?", "yes"),
        case("denied", "Is the heart really enlarged?", "no"),
        case("elsewhere", "Where is the mass?", "liver", image="j"),
        case("unlike", "Any fluid?", "yes"),
    ]
    test = [
        case("t1", "is the heart ENLARGED", "Yes", kind="closed"),
        case("t2", "Where is the mass?", "lung"),
        case("t3", "Where does the mass lie?", "liver", image="copy of j"),
        case("t4", "???", "yes"),
    ]
    copy_class = {"i": "i", "j": "j", "copy of j": "j"}
    seen = questions_seen(train, test, copy_class)
    assert seen.same == {"t1": "same"}
    assert seen.restated == {"t1": "template", "t3": "elsewhere"}
    assert seen.repeated == {"t1": "same", "t2": "elsewhere"}
    assert questions_seen([], test, copy_class).same == questions_seen(train, [], copy_class).repeated == {}


@pytest.fixture(scope="module")
def truth() -> dict[tuple[str, str], set[str]]:
    """The other wordings of each question on each image, as the OSF release lists them in its own columns."""
    rows = json.loads((real("vqa-rad-osf") / "VQA_RAD Dataset Public.json").read_text(encoding="utf-8"))
    wordings: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        stated = [row.get(name) for name in ("question", "question_rephrase", "question_frame")]
        forms = {normalise(str(each)) for each in stated if each and str(each) != "NULL"}
        for form in forms:
            wordings[row["image_name"].removesuffix(".jpg"), form] |= forms
    return wordings


def test_the_restatements_of_vqa_rad_are_found_without_being_named(truth: dict[tuple[str, str], set[str]]) -> None:
    cases = read(real("vqa-rad"), frames=True).cases
    train = [each for each in cases if each.split == "train"]
    test = [each for each in cases if each.split == "test"]
    by_image = defaultdict(list)
    for each in train:
        by_image[each.image_id].append(each)

    def restatements(each: Case) -> set[str]:
        question = normalise(each.question)
        forms = truth.get((each.image_id, question), set()) - {question}
        return {
            other.id
            for other in by_image[each.image_id]
            if normalise(other.question) in forms and normalise(other.answer) == normalise(each.answer)
        }

    listed = {each.id for each in test if restatements(each)}
    found = set(questions_seen(train, test, {each.image_id: each.image_id for each in cases}).restated)
    assert len(listed) > 150
    assert len(listed & found) / len(listed) >= 0.9
    assert len(listed & found) / len(found) >= 0.8
    frames = {each.id for each in train} - {each.id for each in read(real("vqa-rad"), frames=False).cases}
    framed = {each.id for each in test if restatements(each) & frames}
    assert len(framed & found) / len(framed) >= 0.9
