"""The planted shortcut: where an answer is known to hang on a mark, the maps point at the mark."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.shortcut import accuracy, hits, learn, open_engine, plant
from tasks.engine.vision import encode_images

SHOULD = ("relevance", "occlusion")
"""Methods that say what an answer hangs on. Attention is free to rest elsewhere, and with some seeds it does: how often
each method hits is in docs/saliency.md."""


@pytest.mark.slow
def test_maps_point_at_the_mark_that_decides_the_answer() -> None:
    planted = plant()
    assert set(planted.masks) < set(planted.images) and all(mask.any() for mask in planted.masks.values())
    engine = open_engine(seed=0)
    features = encode_images(engine.base, list(planted.images.values()))
    assert accuracy(engine, features, planted.test) < 0.7
    learn(engine, features, planted.train, seed=0)
    assert accuracy(engine, features, planted.test) > 0.9
    found = hits(engine, features, planted, SHOULD)
    for method in SHOULD:
        scores, chance = np.transpose(found[method])
        assert np.allclose(chance, 1 / 9)
        assert scores.mean() > 0.7
        assert stats.binomtest(round(scores.sum()), len(scores), 1 / 9, alternative="greater").pvalue < 1e-6
