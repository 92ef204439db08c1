"""The planted shortcut: where an answer is known to depend on a mark, the maps point at the mark."""

import numpy as np
import pytest

from benchmarks.shortcut import accuracy, hits, learn, open_engine, plant
from tasks.engine.vision import encode_images

LEAST = {"occlusion": 0.7, "relevance": 0.25}
"""The share of maps that peak on the mark, as asked of methods that say what an answer depends on.

It is below what any of the adapters in docs/saliency.md gave. Attention is free to rest elsewhere, and sometimes does.
"""


@pytest.mark.slow
def test_maps_point_at_the_mark_that_decides_the_answer() -> None:
    planted = plant()
    assert set(planted.masks) < set(planted.images) and all(mask.any() for mask in planted.masks.values())
    engine = open_engine(seed=0)
    features = encode_images(engine.base, list(planted.images.values()))
    assert accuracy(engine, features, planted.test) < 0.7
    learn(engine, features, planted.train, seed=0)
    assert accuracy(engine, features, planted.test) > 0.9
    found = hits(engine, features, planted, tuple(LEAST))
    for method, least in LEAST.items():
        scores, chance = np.transpose(found[method])
        assert np.allclose(chance, 1 / 9)
        assert scores.mean() > least
