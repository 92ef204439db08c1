"""How maps are judged, against counting by hand, scipy, pixels, and answers to images painted one by one."""

from typing import Any

import numpy as np
import pytest
import torch
from engine_samples import CASES, IMAGES, randomised
from family_samples import every_family
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import auc, jaccard_score

from tasks.engine.attribution.attention import trace
from tasks.engine.attribution.occlusion import answer_log_probs, boxes, cover
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.vision import Features, encode_images
from tasks.explain import faithfulness
from tasks.explain.faithfulness import deletion_insertion
from tasks.explain.maps import coverage, relevance_row
from tasks.explain.quality import area_under, milestones, overlap, pointing, rank_correlation, ranked

GRIDS = arrays(float, (3, 4), elements=st.floats(0, 1))
EVEN = np.ones((3, 4))


def test_pointing_by_hand() -> None:
    covered = np.array([[0, 0.1], [0, 1.0]])
    assert pointing(np.array([[0, 3.0], [1, 2]]), covered) == 1
    assert pointing(np.array([[4, 3.0], [1, 2]]), covered) == 0
    assert pointing(np.array([[3, 3.0], [3, 2]]), covered) == pytest.approx(1 / 3)
    assert pointing(np.array([[-3, -2.0], [-3, -4]]), covered) == 1
    with pytest.raises(ValueError, match=r"one shape .* found \(1, 2\), \(2, 1\)"):
        pointing(np.ones((1, 2)), np.ones((2, 1)))


@given(GRIDS)
def test_an_even_map_is_a_blind_guess(covered: Any) -> None:
    """The level of chance is that of all cells tried in turn, and of all equally large choices of cells."""
    tries = [pointing(np.eye(12)[cell].reshape(3, 4), covered) for cell in range(12)]
    assert pointing(EVEN, covered) == pytest.approx(np.mean(tries))
    count, area = max(1, round(covered.sum())), covered.sum()
    inside = count * area / 12
    assert overlap(EVEN, covered) == pytest.approx(inside / (count + area - inside))


@given(st.permutations(range(16)), st.integers(1, 15), st.integers(0, 2**31))
def test_overlap_is_that_of_pixels(order: list[int], area: int, seed: int) -> None:
    """Where cells are covered wholly or not, on the pixels of an image of that grid, by scikit-learn."""
    mask = np.zeros(16, bool)
    mask[np.random.default_rng(seed).choice(16, area, replace=False)] = True
    weights = np.array(order, float).reshape(4, 4)
    pixels = mask.reshape(4, 4).repeat(5, 0).repeat(5, 1)
    top = (weights >= 16 - area).repeat(5, 0).repeat(5, 1)
    expected = jaccard_score(pixels.ravel(), top.ravel())
    assert overlap(weights, coverage(pixels, 4, 4)) == pytest.approx(expected)


@given(GRIDS, GRIDS)
def test_overlap_has_its_bounds(weights: Any, covered: Any) -> None:
    assert 0 <= overlap(weights, covered) <= 1
    whole = (covered > 0.5).astype(float)
    if whole.any():
        assert overlap(whole, whole) == pytest.approx(1)
        assert overlap(whole, whole) >= overlap(weights, whole) - 1e-9
    assert overlap(weights, np.zeros((3, 4))) == 0


@given(GRIDS, st.integers(0, 99))
def test_cells_are_ranked_and_ties_are_drawn(weights: Any, seed: int) -> None:
    order = ranked(weights, np.random.default_rng(seed))
    assert sorted(order) == list(range(12))
    assert (np.diff(weights.ravel()[order]) <= 0).all()
    firsts = {ranked(EVEN, np.random.default_rng(n))[0] for n in range(200)}
    assert firsts == set(range(12))


@given(st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_the_area_is_that_of_scikit_learn(curve: list[float]) -> None:
    counts = milestones(9, 16)
    assert counts == list(range(10))
    assert area_under(curve, counts) == pytest.approx(auc(np.linspace(0, 1, 10), curve))
    assert milestones(64, 16) == list(range(0, 65, 4))
    assert area_under([1, 0], [0, 7]) == 0.5


@given(GRIDS, GRIDS)
def test_agreement_is_pearsons_of_ranks(one: Any, other: Any) -> None:
    found = rank_correlation(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert found is None
    else:
        ranks = [stats.rankdata(each).astype(float) for each in (one, other)]
        assert found == pytest.approx(np.corrcoef(ranks)[0, 1])
        assert rank_correlation(one, one) == pytest.approx(1)
        assert rank_correlation(one, -one) == pytest.approx(-1)


PICTURES = {image.id: image for image in IMAGES}


def prompt() -> Prompt:
    return build_prompt(CASES[1], [CASES[4]])


@every_family
def test_curves_are_answers_to_painted_images(engine: Engine, features: Features) -> None:
    """Each point of both curves, asked on its own."""
    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    (example,) = encode(base, features, [prompt()])
    image = PICTURES[example.image_ids[-1]]
    cells = boxes(base, image, 2, 2)
    orders = [[0, 3, 1, 2], [2, 1, 3, 0]]
    found = deletion_insertion(base, features, PICTURES, example, (2, 2), orders, 8192)

    def probability(hidden: list[int]) -> float:
        other = cover(image, [cells[cell] for cell in hidden], image.id)
        seen = encode_images(base, [other, *(each for each in IMAGES if each.id != image.id)])
        return float(np.exp(answer_log_probs(base, seen, [example], 8192)[0].sum()))

    for order, areas in zip(orders, found, strict=True):
        deleted = [probability(order[:count]) for count in range(5)]
        inserted = [probability(order[count:]) for count in range(5)]
        assert deleted[0] == pytest.approx(inserted[-1]) != deleted[-1]
        expected = [auc(np.linspace(0, 1, 5), curve) for curve in (deleted, inserted)]
        assert areas == pytest.approx(expected, rel=1e-3)


@every_family
def test_maps_change_with_the_weights_and_these_come_back(engine: Engine, features: Features) -> None:
    engine.switch(randomised(engine.read(), 1))
    base = engine.base
    (example,) = encode(base, features, [prompt()])
    before = {name: each.clone() for name, each in base.model.named_parameters()}

    def relevance() -> Any:
        traced = trace(base, features, example)
        return relevance_row(traced.attention(), traced.gradients(0), traced.prompt_length - 1)[: traced.prompt_length]

    plain = relevance()
    layers = list(base.model.model.language_model.layers)
    for count in (1, len(layers)):
        with faithfulness.randomised(base, count, seed=0):
            changed = relevance()
            now = dict(base.model.named_parameters())
            moved = {name for name, value in before.items() if not torch.equal(value, now[name])}
            assert all(
                torch.equal(now[name].flatten().sort().values, before[name].flatten().sort().values) for name in moved
            )
            expected = {id(each) for layer in layers[-count:] for each in layer.parameters() if each.dim() > 1}
            assert {id(now[name]) for name in moved} == expected
        correlation = stats.spearmanr(plain, changed).statistic
        assert correlation < 0.9
    assert all(torch.equal(value, before[name]) for name, value in base.model.named_parameters())
    np.testing.assert_allclose(relevance(), plain)
