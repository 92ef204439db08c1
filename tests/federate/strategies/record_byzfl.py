"""Writes `byzfl_cases.json`: what ByzFL makes of small deltas. Run it where `pip install --no-deps byzfl==0.0.11` was.

ByzFL needs torchvision, which wants a torch of its own build, for its benchmarks alone: these are not imported.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np

CASES = Path(__file__).with_name("byzfl_cases.json")


def record() -> list[dict[str, object]]:
    found = importlib.util.find_spec("byzfl")
    assert found and found.submodule_search_locations
    package = types.ModuleType("byzfl")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["byzfl"] = package
    from byzfl.aggregators import CenteredClipping, GeometricMedian, Krum, Median, NNM, TrMean  # noqa: I001

    cases = []
    for seed, (hospitals, bad, scale) in enumerate([(5, 1, 1.0), (8, 2, 0.01), (9, 3, 100.0)]):
        deltas = scale * np.random.default_rng(seed).normal(size=(hospitals, 6))
        deltas[:bad] += 30 * scale
        clipping = CenteredClipping(L=5, tau=scale)
        clipping.m = np.median(deltas, axis=0)
        made = {
            "median": Median()(deltas),
            "trimmed-mean": TrMean(bad)(deltas),
            # ByzFL takes one neighbour more than the paper's n - f - 2.
            "krum": Krum(bad + 1)(deltas),
            "geometric-median": GeometricMedian(nu=1e-9 * scale, T=2000)(deltas),
            "centered-clipping": clipping(deltas),
            "nnm": NNM(bad)(deltas),
        }
        made_lists = {name: np.asarray(each).tolist() for name, each in made.items()}
        cases.append({"byzantine": bad, "tau": scale, "deltas": deltas.tolist(), "made": made_lists})
    return cases


if __name__ == "__main__":
    CASES.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
