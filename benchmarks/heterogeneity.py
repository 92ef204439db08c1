"""Strategies and personal adapters where hospitals are unlike: Dirichlet's alpha 0.1, 0.5 and 1, and IID.

    python -m benchmarks.heterogeneity [--seeds N] [SETTING=VALUE ...]

Each partition is a comparison (`fed-rag compare`) of its own, in `artifacts/comparisons/heterogeneity-*`: test cases
are dealt with the images, and so differ between partitions. Figures are closed accuracy and open exact match, means
over seeds with 95 % intervals that hold training's own chance where there are several seeds.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.cli.settings_file import load_comparison
from flows.cli.terminal import flow_running
from tasks.settings.comparison import Changes, changed

PARTITIONS: dict[str, Changes] = {
    **{f"alpha {alpha}": {"partition.scheme": "dirichlet", "partition.alpha": alpha} for alpha in (0.1, 0.5, 1)},
    "IID": {"partition.scheme": "iid"},
}
TUNED = "fedavg, then fine-tune"
WAYS: dict[str, Changes] = {
    TUNED: {"federation.personal": "fine-tune"},
    "fedprox": {"federation.strategy": "fedprox"},
    "scaffold": {"federation.strategy": "scaffold"},
    "fedadam": {"federation.strategy": "fedadam"},
    "geometric-median": {"federation.strategy": "geometric-median"},
    "none (each alone)": {"federation.strategy": "none"},
}
MEASURES = {"closed_accuracy": "closed", "open_exact_match": "open"}


Documents = Mapping[str, Mapping[str, Any]]
"""A comparison's document for each partition."""


def rows(documents: Documents) -> Iterator[list[str]]:
    """A row for each way and measure, a column for each partition."""
    scores = {
        (split, each["configuration"], each["measure"]): each
        for split, document in documents.items()
        for each in document["scores"]
        if each["group"] == "all"
    }
    for way in WAYS:
        for measure, name in MEASURES.items():
            yield [way, name, *(cell(scores.get((split, way, measure))) for split in documents)]


def cell(score: Mapping[str, Any] | None) -> str:
    """A score with its interval."""
    if score is None:
        return "-"
    interval = score["interval"]
    return f"{score['score']:.3f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def gains(documents: Documents) -> Iterator[list[str]]:
    """What fine-tuning brought beside the adapter for all: share of right answers, by seed, and the worst hospital."""
    for split, document in documents.items():
        for run in (each for each in document["runs"] if each["name"] == TUNED):
            found = json.loads((Path("artifacts/runs") / run["run"] / "results.json").read_text())["personal"]
            gain, worst = found["gain"], found["worst"]["personal"]
            shown = f"{gain['value']:+.3f} [{gain['interval'][0]:+.3f}, {gain['interval'][1]:+.3f}]"
            yield [split, str(run["seed"]), f"{found['for_all']:.3f}", f"{found['personal']:.3f}", shown, worst]


def table(headings: list[str], found: Iterator[list[str]]) -> str:
    """Rows in Markdown."""
    lines = [headings, ["---"] * len(headings), *found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run all studies, or find them, and print the tables."""
    parser = argparse.ArgumentParser(description="Strategies where hospitals are unlike.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    base = load_comparison(None, tuple(f"study.{each}" for each in given.settings))
    documents = {}
    with flow_running():
        from flows.compare import compare

        for name, split in PARTITIONS.items():  # hospitals deal their test cases too, so that these differ
            changes: dict[str, Any] = {
                "name": f"heterogeneity-{name.replace(' ', '-')}",
                "study": changed(base.study, split),
                "configurations": WAYS,
                "reference": TUNED,
                "swept": TUNED,
                "seeds": tuple(range(given.seeds)),
                "splits": ("none",),
                "cost": False,
            }
            folder = Path(compare(base.model_copy(update=changes)))
            documents[name] = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    print(table(["strategy", "questions", *PARTITIONS], rows(documents)))
    print("\n" + table(["partition", "seed", "for all", "personal", "gain", "worst hospital"], gains(documents)))


if __name__ == "__main__":
    main()
