"""What a run says of test images that its base was trained on: beside every table of scores, or not at all."""

import re
from typing import Any

import pytest
from test_page import DATA, results, tables  # noqa: F401

from flows.report import _sections, _statements
from tasks.records.shared_documents import SeenCounts, SeenDocument, SharedDocuments
from tasks.report.held_back import held_back
from tasks.report.page.render import model_card, study_page
from tasks.report.results import markdown
from tasks.report.seen import seen_of_run, seen_sentence


def counts(n: int | None, seen: int | None, identical: int | None = None, at_least: int | None = None) -> SeenCounts:
    return {"n": n, "seen": seen, "identical": identical, "at_least": seen or 0 if at_least is None else at_least}


def shared(hospital: str, images: SeenCounts) -> SeenDocument:
    return {"hospital": hospital, "record": "abc", "images": images, "cases": counts(50, 20, 20)}


END = ": scores on them are no measure of new images."


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], ""),
        ([counts(96, 0, 0)], ""),
        ([counts(96, 0, 0), counts(96, 0, 0)], ""),
        ([counts(96, 41, 41)], "41 of the 96 test images"),
        ([counts(96, 41, 0)], "41 of the 96 test images or on images as good as the same"),
        ([counts(96, 41)], "41 of the 96 test images or on images as good as the same"),
        ([counts(None, 41, 41)], "41 of the test images"),
        ([counts(96, None, at_least=38)], "at least 38 of the 96 test images or on images as good as the same"),
        ([counts(96, None)], "some of the 96 test images or on images as good as the same"),
        ([counts(96, 41, 41), counts(96, 39, 39)], "39 to 41 of the 96 test images"),
        ([counts(96, 0, 0), counts(95, 3, 3)], "0 to 3 of the 95 to 96 test images"),
        (
            [counts(96, 41, 41), counts(96, None, at_least=7)],
            "at least 7 of the 96 test images or on images as good as ",
        ),
        ([counts(96, 0, 0), counts(96, None)], "some of the 96 test images or on images as good as the same"),
    ],
)
def test_the_sentence(images: list[SeenCounts], sentence: str) -> None:
    found = seen_sentence(images)
    assert found.startswith(f"The base was trained on {sentence}" if sentence else "")
    assert found.endswith(END) == bool(sentence)
    assert bool(found) == bool(sentence)


def test_hospitals_are_added_up_and_one_that_withholds_leaves_the_rest_as_the_least() -> None:
    assert seen_of_run([]) is None
    found = seen_of_run([shared("a", counts(60, 20, 15)), shared("b", counts(36, 21, 21))])
    assert found is not None
    assert found["images"] == counts(96, 41, 36)
    assert found["cases"] == counts(100, 40, 40)
    assert (found["record"], list(found["hospitals"])) == ("abc", ["a", "b"])
    few = [shared("a", counts(60, 20, 15)), shared("b", counts(36, None, 0, at_least=0))]
    found = seen_of_run(few)
    assert found is not None
    assert found["images"] == counts(96, None, 15, at_least=20)
    withheld = held_back(5, SharedDocuments(scores=[], seen=few))
    assert withheld["hospitals"] == {"b": ["test images that the base was trained on"]}


def seen_by(results: dict[str, Any], seen: int | None) -> dict[str, Any]:  # noqa: F811
    """The document of a run whose base was trained on so many of 96 test images; None where it has no record."""
    found = None if seen is None else seen_of_run([shared("hospital-1", counts(96, seen, seen))])
    blank = {"meaning": "no image", "closed": 0.5, "open": None, "score": 0.5, "kept": 1.0}
    reliance = {
        "n": 3,
        "alterations": {"image_blank": blank},
        "sentence": "It looks.",
        "ignores_images": False,
        "hospitals": {},
    }
    withheld = {"min_cell": 5, "hospitals": {"hospital-1": ["failure modes"]}}
    return results | {"seen": found, "reliance": {"fed+rag": reliance}, "withheld": withheld}


def test_every_table_of_scores_says_so(results: dict[str, Any]) -> None:  # noqa: F811
    document = seen_by(results, 41)
    sentence = "The base was trained on 41 of the 96 test images" + END
    scores, rest = markdown(document).split("## Withheld")
    tables_of_scores = re.findall(r"(?:^\|.*\n)+\n(.*)", scores, flags=re.MULTILINE)
    assert tables_of_scores == [sentence] * len(tables_of_scores) and len(tables_of_scores) >= 5
    assert sentence not in rest
    page = study_page(document, tables(document), _statements(document), list(_sections(document)))
    score_part = page[page.index('id="scores"') : page.index("What hospitals withhold")]
    captions = re.findall(r"<caption>(.*?)</caption>", score_part)
    assert len(captions) >= 5 and all(sentence in each for each in captions)
    assert sentence not in page[page.index("What hospitals withhold") :]
    assert sentence in model_card(document, tables(document), _statements(document))


@pytest.mark.parametrize("seen", [0, None])
def test_nothing_is_said_where_none_was_seen_or_nothing_is_known(results: dict[str, Any], seen: int | None) -> None:  # noqa: F811
    document = seen_by(results, seen)
    page = study_page(document, tables(document), _statements(document), list(_sections(document)))
    card = model_card(document, tables(document), _statements(document))
    for text in (markdown(document), page, card):
        assert "was trained on" not in text
    assert "may have seen test images" not in card  # the embedded base: drawn images alone
    named = {**document["settings"], "model": {**document["settings"]["model"], "name": "some/model"}}
    card = model_card(document | {"settings": named}, tables(document), _statements(document))
    assert ("may have seen test images" in card) == (seen is None)


def test_a_run_of_an_earlier_version_says_nothing(results: dict[str, Any]) -> None:  # noqa: F811
    older = {name: value for name, value in results.items() if name != "seen"}
    assert _statements(older).seen == ""
    assert model_card(older, tables(older), DATA)
