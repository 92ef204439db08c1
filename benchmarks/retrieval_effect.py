"""What the retrieved cases do to the answers: the number shown, with and without their images.

    python -m benchmarks.retrieval_effect [SETTING=VALUE ...]

A study for each number and way of showing, otherwise of the settings given; those that ran before are found in
`artifacts/`. A line for each: closed accuracy and open exact match on the test cases with 95 % bootstrap intervals
over images, and beside them the difference from the same study without retrieved cases, on the same questions.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.cli.settings_file import load_study
from flows.fed_rag import fed_rag
from tasks.records import Case, Prediction, read_table
from tasks.score.score import score_row
from tasks.score.statistics import Estimate, bootstrap_interval
from tasks.store import ROOT

COUNTS = (0, 1, 3, 5, 10)
WAYS = ("images+text", "text")

Judged = dict[str, tuple[str, str, float]]
"""By case: its kind, its image, and 1 for a right answer, else 0."""


def main(settings: Sequence[str]) -> None:
    """Run the studies that are missing, and print a line for each."""
    print(
        "| shown | k | closed n | closed accuracy | from k = 0 | open n | open exact match | from k = 0 |", flush=True
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    without: Judged = {}
    for k, way in [(0, WAYS[0])] + [(k, way) for k in COUNTS[1:] for way in WAYS]:
        study = load_study(None, (*settings, f"retrieval.k={k}", f"retrieval.show={way}"))
        judged = judge(Path(fed_rag(study)), study.configuration)
        without = without or judged
        cells = [cell for kind in ("closed", "open") for cell in figures(kind, judged, without, study.seed)]
        print(f"| {way if k else 'nothing'} | {k} | {' | '.join(cells)} |", flush=True)


def judge(run: Path, configuration: str) -> Judged:
    """A run's answers to its test cases, judged."""
    places = json.loads((run / "references.json").read_text(encoding="utf-8"))["hospitals"].values()
    judged: Judged = {}
    for hospital in places:
        images = {case.id: case.image_id for case in read_table(ROOT / hospital["cases"] / "cases.parquet", Case)}
        for place in hospital["predictions"]:
            for row in read_table(ROOT / place / "predictions.parquet", Prediction):
                if row.configuration == configuration:
                    score = score_row(row.prediction, row.reference, row.kind, row.options)
                    right = float(score.correct)
                    judged[row.case_id] = (row.kind, images[row.case_id], right)
    return judged


def figures(kind: str, judged: Judged, without: Judged, seed: int) -> tuple[str, str, str]:
    """Number of questions of a kind, share answered rightly, and its difference from the study without retrieval."""
    cases = sorted(case for case, (case_kind, _, _) in judged.items() if case_kind == kind)
    images = [judged[case][1] for case in cases]
    right, before = ([each[case][2] for case in cases] for each in (judged, without))
    share = bootstrap_interval(right, images, seed)
    gain = bootstrap_interval([after - first for after, first in zip(right, before, strict=True)], images, seed)
    return str(len(cases)), with_interval(share, ""), with_interval(gain, "+") if judged is not without else "-"


def with_interval(figure: Estimate, sign: str) -> str:
    """A figure with its interval."""
    ends = "" if figure.interval is None else ", ".join(f"{end:{sign}.3f}" for end in figure.interval)
    return f"{figure.value:{sign}.3f} ({ends})"


if __name__ == "__main__":
    main(sys.argv[1:])
