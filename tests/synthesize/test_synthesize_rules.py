"""Questions from captions by rule: what is stated is asked, what is denied is denied, the rest is left alone."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_samples import real

from tasks.errors import StudyError
from tasks.ingest import phantom
from tasks.records import Caption, Case, Synthetic
from tasks.synthesize.generate import askable, synthesize
from tasks.synthesize.quality import given_away, key, measure, mend, without_filler
from tasks.synthesize.rules import write_pairs
from tasks.synthesize.statements import read_mentions, stated
from tasks.synthesize.support import objection


def caption(text: str, **more: str) -> Caption:
    return Caption(**{"image_id": "i1", "text": text, "split": "train", "dataset": "d", "language": "en"} | more)  # type: ignore[arg-type]


def read(text: str) -> tuple[set[str], set[str]]:
    present, absent = stated(read_mentions(text))
    return set(present), set(absent)


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        ("There is a mass.", {"mass"}, set()),
        ("No mass.", set(), {"mass"}),
        ("No mass but a cyst is seen.", {"cyst"}, set()),
        ("No fracture, but a cyst is seen.", {"cyst"}, {"fracture"}),
        (
            "There is no evidence of edema, mass effect, hemorrhage, or infarct.",
            set(),
            {"edema", "mass effect", "hemorrhage", "infarct"},
        ),
        ("A CT of the chest without abnormality.", set(), {"abnormality"}),
        ("Absence of hydronephrosis.", set(), {"hydronephrosis"}),
        ("CT is negative for pulmonary embolism.", set(), {"pulmonary embolism"}),
        ("CT rules out appendicitis.", set(), {"appendicitis"}),
        ("Rule out appendicitis.", set(), set()),
        ("No stones seen.", set(), {"calculus"}),
        ("A fistula is not visualized.", set(), {"fistula"}),
        ("A fistula is absent.", set(), {"fistula"}),
        ("No change in the mass.", {"mass"}, set()),
        ("Not only a mass but also edema.", {"mass", "edema"}, set()),
        ("CT without contrast shows a mass.", {"mass"}, set()),
        ("MRI with and without contrast shows a mass.", {"mass"}, set()),
        ("No new lesions.", set(), set()),
        ("No other abnormality.", set(), set()),
        ("No evidence of fat within the mass.", set(), set()),
        ("The left kidney is normal with no evidence of hydronephrosis.", set(), set()),
        ("A cyst with no surrounding edema.", {"cyst"}, set()),
        ("No edema, a large mass in the left lung.", set(), set()),
        ("No edema and a mass.", set(), {"edema"}),
        ("Possible abscess.", set(), set()),
        ("Abscess cannot be excluded.", set(), set()),
        ("Mass versus abscess.", set(), set()),
        ("Status post resection of a meningioma.", set(), set()),
        ("Is this an abscess?", set(), set()),
        ("No mass. A tumor of the liver.", {"tumor"}, set()),
        ("No edema. There is edema of the right lung.", set(), set()),
        ("No abnormality. There is a cyst.", {"cyst"}, set()),
        ("Mass-like opacity.", {"opacity"}, set()),
        ("Large pleural effusion.", {"pleural effusion"}, set()),
        ("A mass with mass effect.", {"mass", "mass effect"}, set()),
        ("A small hemorrhage, 2.5 cm, in the pons.", {"hemorrhage"}, set()),
        ("However, no pneumothorax is seen.", set(), set()),
        ("No hydrocephalus, extraaxial fluid collection or evidence of edema.", set(), {"hydrocephalus", "edema"}),
        ("There is no fracture or soft tissue swelling.", set(), {"fracture"}),
        ("No fracture or edema in the left hand.", set(), {"edema"}),  # there; of the fracture it is unclear
        ("No fracture, seen in the left hand, or edema.", set(), set()),
        ("No abscess seen on CT.", set(), {"abscess"}),
        ("No pneumatosis nor new dilation.", set(), set()),
        ("A fistula tract is not visualized.", set(), set()),
        ("A mass and a cyst are not seen.", set(), set()),
        ("Fibrosis can\N{RIGHT SINGLE QUOTATION MARK}t be ruled out.", set(), set()),
        ("Confirming the abscence of edema.", set(), set()),
        ("", set(), set()),
    ],
)
def test_negation(text: str, present: set[str], absent: set[str]) -> None:
    assert read(text) == (present, absent)


@pytest.mark.parametrize(
    ("text", "sides", "place", "size"),
    [
        ("A small mass in the upper left and a large cyst in the lower right.", {"left"}, "upper left", "small"),
        ("Left renal mass.", {"left"}, None, None),
        ("A mass is seen in the right lower lobe.", {"right"}, "right lower lobe", None),
        ("Mass of the head of the pancreas.", set(), "head of the pancreas", None),
        ("Bilateral masses.", {"bilateral"}, None, None),
        ("A mass in the left lung and right kidney.", {"left", "right"}, None, None),
        ("A mass displacing the right kidney.", set(), None, None),
        ("Mass on the right.", {"right"}, None, None),
        ("A mass. The left kidney is normal.", set(), None, None),
    ],
)
def test_side_place_and_size_belong_to_their_finding(
    text: str, sides: set[str], place: str | None, size: str | None
) -> None:
    mention = next(each for each in read_mentions(text) if each.name == "mass")
    assert (set(mention.sides), mention.place, mention.size) == (sides, place, size)


@pytest.fixture(scope="module")
def drawn() -> phantom.Source:
    return phantom.read(images=100, seed=3, public=False, test_fraction=0.2)


def test_phantom_answers_agree_with_its_findings(drawn: phantom.Source) -> None:
    """Every synthetic answer on 400 images against what was drawn."""
    cases, origins, report = synthesize(drawn.captions, "rules", seed=1)
    findings = {(each.image_id, each.name): each for each in drawn.findings}
    findings_of = Counter(each.image_id for each in drawn.findings)
    names = {each.name for each in drawn.findings}
    checked: Counter[str] = Counter()
    for case in cases:
        of_image = [each for (image, _), each in findings.items() if image == case.image_id]
        named_findings = [each for each in of_image if each.name in case.question]
        words, yes = case.question.rstrip("?").split(), case.answer == "yes"
        if case.topic in ("modality", "organ"):
            truth = getattr(case, case.topic)
            assert (truth in case.question) == yes if case.kind == "closed" else case.answer == truth
        elif case.topic == "presence":
            named = [name for name in names if name in words]
            assert yes == (findings_of[case.image_id] > 0 if not named else (case.image_id, named[0]) in findings)
        elif case.topic == "finding":
            side = next((word for word in words if word in ("left", "right")), "")
            assert set(case.answer.split(" and ")) == {each.name for each in of_image if side in each.position}
        else:
            (one,) = named_findings
            value = {"side": one.position.split()[1], "size": one.size, "location": one.position}[str(case.topic)]
            assert (value in words) == yes if case.kind == "closed" else case.answer == value
        checked[str(case.topic)] += 1
    assert len(cases) == len(origins) == report["after"]["pairs"] > 3000
    assert min(checked.values()) > 50
    assert set(checked) == {"modality", "organ", "presence", "finding", "side", "location", "size"}
    assert report["before"]["faults"]["unsupported"]["pairs"] == 0


def test_same_seed_same_pairs_and_another_seed_other_wordings(drawn: phantom.Source) -> None:
    few = drawn.captions[:40]
    assert synthesize(few, "rules", seed=1) == synthesize(few, "rules", seed=1)
    assert synthesize(few, "rules", seed=1)[0] != synthesize(few, "rules", seed=2)[0]


def test_ids_groups_and_origins_come_along() -> None:
    one = caption("CT shows a mass in the left lung.", modality="ct", organ="chest", group="p1", site="s1", age="50")
    cases, origins, _ = synthesize([one, replace(one, image_id="i2", split="test")], "rules", seed=0)
    assert [case.id for case in cases if case.image_id == "i2"][:2] == ["d:synthetic:i2:0", "d:synthetic:i2:1"]
    assert {(case.group, case.site, case.organ, case.modality) for case in cases} == {("p1", "s1", "chest", "ct")}
    assert {case.split for case in cases if case.image_id == "i2"} == {"test"}
    for case, origin in zip(cases, origins, strict=True):
        assert isinstance(origin, Synthetic)
        assert origin.case_id == case.id
        if origin.source == "caption":
            assert one.text[origin.start : origin.end] == origin.span != ""
        else:
            assert origin.span in ("modality=ct", "organ=chest")
    assert not {"sex", "age"} & {case.topic for case in cases}


def test_sex_and_age_only_if_asked() -> None:
    one = caption("CT", modality="CT", sex="male", age="73")
    cases, *_ = synthesize(
        [one, replace(one, image_id="i2", sex="N/A", age=None)], "rules", seed=0, ask_sex_and_age=True
    )
    assert {(case.image_id, case.topic, case.answer) for case in cases if case.topic in ("sex", "age")} == {
        ("i1", "sex", "male"),
        ("i1", "age", "73"),
    }


def test_metadata_that_the_caption_contradicts_are_not_asked() -> None:
    assert not write_pairs(caption("Coronal MRI.", modality="CT", plane="Axial"), 0, False)
    topics = {draft.topic for draft in write_pairs(caption("Coronal CT and MRI."), 0, False)}
    assert topics == {"plane"}


def test_yes_and_no_are_spelled_alike() -> None:
    rows = [caption("", image_id=f"i{n}", plane=plane) for n, plane in enumerate(["Axial", "Coronal", "Sagittal"] * 9)]
    cases, *_ = synthesize(rows, "rules", seed=0)
    assert all(word.islower() for case in cases for word in case.question[1:].replace("?", "").split())


def test_no_presence_question_is_answered_no_unless_the_caption_denies_it() -> None:
    cases, *_ = synthesize([caption("A mass in the left lung.")] * 3, "rules", seed=0)
    assert {(case.topic, case.answer) for case in cases if case.kind == "closed"} == {("side", "yes"), ("side", "no")}
    assert len(cases) == len({case.question for case in cases})  # the repeated captions are duplicates


def test_what_is_published_is_not_asked_again(drawn: phantom.Source) -> None:
    cases, *_ = synthesize(drawn.captions, "rules", seed=1, published=drawn.cases)
    published = {key(case.image_id, case.question) for case in drawn.cases}
    assert not any(key(case.image_id, case.question) in published for case in cases)


def test_a_published_test_split_stays_as_published() -> None:
    rows = [caption("a", image_id="i1"), caption("b", image_id="i2", split="test"), caption("c", image_id="i3")]
    case = Case("d:1", "i3", "q", "a", "open", "test", "d", "en")
    assert [each.image_id for each in askable(rows, [case])] == ["i1"]
    assert askable(rows, []) == rows


def test_nothing_to_ask_about_is_one_sentence() -> None:
    with pytest.raises(StudyError, match="found none among 1"):
        synthesize([caption("Replace this.")], "rules", seed=0)


def test_faults_are_found_and_mended() -> None:
    one = caption("CT shows a mass in the left lung. No effusion.")
    good = next(draft for draft in write_pairs(one, 0, False) if draft.topic == "location")
    worse = [
        good,
        good,
        replace(good, question="As seen in the image, where is it? The mass?", answer="The image shows left lung"),
        replace(good, question="Where in the left lung is the mass?"),
        replace(good, answer="right lung"),
        replace(good, question="Is there a mass?", answer="yes", topic="presence", value="mass"),
    ]
    assert {name: each["pairs"] for name, each in measure(worse)["faults"].items()} == {
        "filler": 1,
        "giveaway": 1,
        "duplicate": 2,
        "unsupported": 2,
    }
    kept, done = mend(worse, seed=0)
    assert [draft.answer.lower() for draft in kept] == ["left lung", "left lung"]
    assert done == {
        "dropped as duplicate": 1,
        "dropped as given away": 1,
        "dropped as unsupported": 1,
        "dropped for balance": 1,
        "filler cut out": 1,
        "negatives added": 0,
    }


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("The image shows a mass", "A mass"),
        ("This is an image of the chest", "The chest"),
        ("Figure 2 shows a cyst", "A cyst"),
        ("a mass as seen in the image", "a mass"),
        ("What is the mass shown in this figure?", "What is the mass?"),
        ("left lung", "left lung"),
        ("the image shows", "the image shows"),
    ],
)
def test_filler(text: str, bare: str) -> None:
    assert without_filler(text) == bare


def test_share_given_away() -> None:
    assert given_away("Is the left lung whole?", "left lung") == 1.0
    assert given_away("Where is it?", "left lower lung") == 0.0
    assert given_away("Is it left?", "no") == 0.0


WORDS = "no not without a the mass edema , . or and but left right lung in of ? is seen large"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(re.findall(r"\S+", WORDS)), max_size=25))
def test_any_words_give_supported_even_pairs(words: list[str]) -> None:
    drafts = write_pairs(caption(" ".join(words)), 0, False)
    kept, _ = mend(drafts, 0)
    assert all(objection(draft) is None for draft in kept)
    answers = Counter(draft.answer for draft in kept if draft.closed)
    assert answers["yes"] == answers["no"]


@pytest.fixture(scope="module")
def medpix() -> list[Caption]:
    rows = json.loads((real("medpix-2.0") / "MedPix-2-0/Descriptions.json").read_text(encoding="utf-8"))
    return [
        caption(
            row["Description"]["Caption"] or "",
            image_id=row["image"],
            modality=row["Description"]["Modality"],
            plane=row["Description"]["Plane"],
            organ=row["Location"],
        )
        for row in rows
    ]


def test_medpix_is_even_supported_and_denies_what_its_captions_deny(medpix: list[Caption]) -> None:
    cases, origins, report = synthesize(medpix, "rules", seed=0)
    after = report["after"]
    assert report["before"]["yes_no"]["yes_share"] > 0.9
    assert 0.45 <= after["yes_no"]["yes_share"] <= 0.55
    assert all(fault["pairs"] == 0 for fault in after["faults"].values())
    assert len(cases) > 10_000
    texts = {each.image_id: each.text for each in medpix}
    denied = set()
    for case, origin in zip(cases, origins, strict=True):
        if origin.source == "caption":
            assert texts[case.image_id][origin.start : origin.end] == origin.span
        if case.topic == "presence" and case.answer == "no":
            denied.add(case.question.split(" ", 2)[-1].replace("the image show ", ""))
    # By hand, from the captions.
    denials = " ".join(denied)
    for what in ("pulmonary embolism", "acute intracranial hemorrhage", "metastasis in the liver", "venous thrombosis"):
        assert what in denials
