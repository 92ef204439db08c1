"""Explanations of answers, against the methods called one by one."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from engine_samples import CASES, IMAGES, case, randomised
from family_samples import every_family

from tasks.engine.attribution.attention import trace
from tasks.engine.attribution.layout import PARTS, layout
from tasks.engine.attribution.occlusion import boxes, occlude_parts, occlude_regions
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.prompt import PLAIN, Query, build_prompt
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.explain.attribution import METHODS, Explanation, explain
from tasks.explain.hospital_attributions import draw
from tasks.explain.maps import relevance_row
from tasks.explain.shares import mean_shares
from tasks.records import Image, Saliency, Share
from tasks.report.page.overlay import sheet
from tasks.report.saliency import share_rows, share_table
from tasks.settings import ContextSettings

PICTURES = {image.id: image for image in IMAGES}
QUERY = Query(CASES[1], (CASES[4], CASES[2]), (0.9, 0.8))
SAID = "lower left side"


def grid(each: Saliency) -> np.ndarray[Any, Any]:
    return np.reshape(each.weights, (each.rows, each.columns))


def explained(engine: Engine, features: Features, how: ContextSettings = PLAIN, **rest: Any) -> Explanation:
    engine.switch(randomised(engine.read(), 1))
    return explain(engine.base, features, PICTURES, QUERY, how, SAID, **rest)


@every_family
def test_maps_and_shares_are_one_weight(engine: Engine, features: Features) -> None:
    found = explained(engine, features, methods=METHODS[:3])
    assert "".join(found.tokens).replace(" ", "") == SAID.replace(" ", "")
    assert all(0 < each < 1 for each in found.probabilities)
    assert [(each.image_id, each.rank) for each in found.maps] == 3 * [
        ("image-2", 1),
        ("image-4", 0),
        ("image-1", None),
    ]
    for method in METHODS[:3]:
        shares = found.share(method)
        assert list(shares) == list(PARTS)
        assert sum(shares.values()) == pytest.approx(1)
        assert sum(found.map(method).weights) == pytest.approx(shares["query_image"])
        retrieved = [*found.map(method, 0).weights, *found.map(method, 1).weights]
        assert sum(retrieved) == pytest.approx(shares["retrieved_images"])
    for each in found.maps:
        edges = boxes(engine.base, PICTURES[each.image_id], each.rows, each.columns)
        np.testing.assert_allclose((*edges[0][:2], *edges[-1][2:]), each.window, atol=0.5)


def test_heads_together_are_the_whole(engine: Engine, features: Features) -> None:
    """The answer's first token sees the prompt alone, so that each head's weights sum to 1 in it."""
    found = explained(engine, features, methods=["attention"], token=0, heads=True)
    heads = [each for each in found.maps if each.rank is None and each.head is not None]
    text = engine.base.config.get_text_config()
    wanted = [(layer, head) for layer in range(text.num_hidden_layers) for head in range(text.num_attention_heads)]
    assert [(each.layer, each.head) for each in heads] == wanted
    np.testing.assert_allclose(np.mean([grid(each) for each in heads], axis=0), grid(found.map("attention")), atol=1e-6)
    for layer in range(text.num_hidden_layers):
        (query_map, *others), shares = found.seen("attention", layer)
        assert (query_map.rank, [each.rank for each in others]) == (None, [0, 1])
        np.testing.assert_allclose(
            np.mean([grid(each) for each in heads if each.layer == layer], axis=0), grid(query_map)
        )
        assert sum(query_map.weights) == pytest.approx(shares["query_image"])
    assert {each.token for each in (*found.maps, *found.shares)} == {0}


def test_the_whole_answer_is_its_tokens_together(engine: Engine, features: Features) -> None:
    whole = explained(engine, features)
    each = [explained(engine, features, token=token) for token in range(len(whole.tokens))]
    assert len(each) > 1
    for method, rank in [(method, rank) for method in METHODS for rank in (None, 0, 1)]:
        over = np.sum if method == "occlusion" else np.mean
        pieces = [grid(one.map(method, rank)) for one in each]
        np.testing.assert_allclose(grid(whole.map(method, rank)), over(pieces, axis=0), atol=1e-6)


def test_one_token_is_what_the_method_says(engine: Engine, features: Features) -> None:
    found = explained(engine, features, methods=["relevance", "occlusion"], token=1)
    prompt = replace(build_prompt(QUERY.case, QUERY.retrieved), answer=SAID)
    (example,) = encode(engine.base, features, [prompt])
    traced, where = trace(engine.base, features, example), layout(engine.base, features, prompt)
    row = relevance_row(traced.attention(), traced.gradients(1), traced.prompt_length)[: traced.prompt_length]
    place = where.places[1]
    expected = (row / row.sum())[place.positions].reshape(place.rows, place.columns)
    np.testing.assert_allclose(grid(found.map("relevance", 0)), expected, atol=1e-6)
    shape = (found.map("occlusion").rows, found.map("occlusion").columns)
    falls = occlude_regions(engine.base, features, PICTURES, example, 2, shape, 8192)
    np.testing.assert_allclose(grid(found.map("occlusion")), falls[..., 1], atol=1e-5)
    parts = occlude_parts(engine.base, features, PICTURES, example, where, 8192)[:, 1].clip(0)
    shares = list(found.share("occlusion").values())
    np.testing.assert_allclose(shares, [*(parts / parts.sum()), 0], atol=1e-4)


@pytest.mark.parametrize("order", ["nearest first", "nearest last", "random"])
@pytest.mark.parametrize("quote", [False, True])
def test_a_map_knows_which_case_brought_its_image(engine: Engine, features: Features, order: Any, quote: bool) -> None:
    found = explained(engine, features, ContextSettings(order=order, quote=quote), methods=["attention"])
    brought = {each.rank: each.image_id for each in found.maps}
    assert brought == {None: "image-1", 0: "image-4", 1: "image-2"}


def test_words_alone_bring_no_image(engine: Engine, features: Features) -> None:
    found = explained(engine, features, ContextSettings(show="text"), methods=["attention", "occlusion"])
    assert [(each.image_id, each.rank) for each in found.maps] == 2 * [("image-1", None)]
    assert found.share("attention")["retrieved_text"] > 0


def test_means_of_hospitals_are_the_means_of_their_answers() -> None:
    rng = np.random.default_rng(0)
    of = {"a": rng.dirichlet(np.ones(5), (3, 2)), "b": rng.dirichlet(np.ones(5), (1, 2)), "c": np.empty((0, 2, 5))}
    shared = []
    for hospital, answers in of.items():
        rows = [
            Share(f"{hospital}:{number}", method, None, None, None, part, float(answer[place, column]))
            for number, answer in enumerate(answers)
            for place, method in enumerate(("relevance", "rollout"))
            for column, part in enumerate(PARTS)
        ]
        shared.append({"hospital": hospital, **mean_shares(rows)})
    table = share_table("fed+rag", shared)["fed+rag"]
    assert (table["n"], list(table["hospitals"])) == (4, ["a", "b"])
    means = np.concatenate([of["a"], of["b"]]).mean(0)
    np.testing.assert_allclose([list(shares.values()) for shares in table["methods"].values()], means)
    headings, first, *_ = share_rows(table)
    assert headings == ("of 4 answers", "query image", "retrieved images", "retrieved text", "question", "format")
    assert first == ("relevance", *(f"{share:.3f}" for share in means[0]))
    assert share_table("fed+rag", [shared[2]]) == {}


def test_what_is_explained_is_among_what_is_asked_again() -> None:
    cases = [
        case(number, f"image-{number}", "What?", "mass", "test" if number % 2 else "train") for number in range(40)
    ]
    again, few = draw(cases, [8], 3), draw(cases, [8, 2], 3)
    assert len(few) == 2
    assert {each.id for each in few} < {each.id for each in again}
    assert all(each.split == "test" for each in again)


def test_a_sheet_shows_weights_where_they_are() -> None:
    """The sheets of two maps differ where their heavy regions lie, and the text of a question is no formula."""
    image = Image("flat", png(np.full((60, 60), 90, np.uint8)), 60, 60)
    maps = [
        Saliency("toy:1", "relevance", None, None, None, "flat", None, 1, 2, weights, (0.0, 0.0, 60.0, 60.0))
        for weights in ((1.0, 0.0), (0.0, 1.0))
    ]
    shares = dict(zip(PARTS, (0.5, 0.2, 0.1, 0.1, 0.1), strict=True))
    sheets = [sheet("What is $x_{1$ 肺?", "mass", [(image, each, "its image")], shares) for each in maps]
    left, right = (np.asarray(PIL.Image.open(io.BytesIO(each)).convert("RGB"), int) for each in sheets)
    differs = np.abs(left - right).sum(-1) > 60
    columns = np.flatnonzero(differs.any(0))
    half = (columns[0] + columns[-1]) // 2
    yellow = left[..., 0] - left[..., 2] > 30  # the heavy end of the scale
    assert (yellow & differs)[:, :half].sum() > 20 * (yellow & differs)[:, half + 2 :].sum()


def png(pixels: Any) -> bytes:
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def test_a_token_that_is_not_there_is_refused(engine: Engine, features: Features) -> None:
    with pytest.raises(StudyError, match=r"Expected a token of the answer, 0 to \d+, found 99\."):
        explained(engine, features, token=99)
