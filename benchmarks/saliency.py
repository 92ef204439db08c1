"""Do the maps of a finished run deserve their name? Every method against findings' masks, deletion, chance.

    python -m benchmarks.saliency [RUN] [IMAGES]

RUN is a run's folder (artifacts/latest), whose hospitals know masks, as those of the embedded dataset do; IMAGES are
drawn at random over its hospitals' test cases (60), each with one question about a finding. Explained is what the
model answered, right or wrong, with the retrieved cases that it was shown. Intervals are of 95 %, by bootstrap over
images.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tasks.engine.adapter import load_state
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.hospital import Hospital, open_hospital
from tasks.engine.identity import choose_model
from tasks.engine.prompt import Query, build_prompt, build_queries
from tasks.engine.shared import shared_engine
from tasks.explain.attribution import METHODS, Explanation, explain
from tasks.explain.examination import Seen, covered_cells, open_examined
from tasks.explain.faithfulness import deletion_insertion, randomised
from tasks.explain.maps import as_map
from tasks.explain.quality import Cells, overlap, pointing, rank_correlation, ranked
from tasks.records import Finding, Prediction, read_findings, read_table
from tasks.records.federation import HospitalRefs
from tasks.score.statistics import bootstrap_interval
from tasks.settings import Study
from tasks.store import ROOT
from tasks.store.runs import open_run

SEED = 0
ORDERS = 3
"""Random orders of an image's cells that deletion and insertion are compared with."""
Figures = dict[tuple[str, str], list[float]]
"""By figure and method, a value for each image; images of which there is none are left out."""


def main(run: Path, images: int) -> None:
    """Print the tables."""
    study, references = open_run(run)
    figures: Figures = defaultdict(list)
    with shared_engine(choose_model(study.model), study.lora) as engine:
        for name, places in references["hospitals"].items():
            most = images // len(references["hospitals"])
            for seen, query, answer in questions(engine, study, name, places, most):
                for what, value in judge(seen, query, answer).items():
                    figures[what].append(value)
    print(report(figures))


def questions(
    engine: Engine, study: Study, name: str, places: dict[str, Any], most: int
) -> Iterator[tuple[Seen, Query, str]]:
    """Some of a hospital's test cases about known findings, no image twice, each with the model's answer."""
    hospital = HospitalRefs.at(name, places)
    hospital_data, cases = open_hospital(hospital), hospital.cases.folder
    answers = {
        row.case_id: row.prediction
        for place in places["predictions"]
        for row in read_table(ROOT / place / "predictions.parquet", Prediction)
        if row.configuration == study.configuration
    }
    engine.switch(load_state(hospital.adapter.folder))
    chosen = draw(hospital_data, list(read_findings(cases / "findings.parquet")), answers, most)
    queries = build_queries(
        chosen, hospital_data.prompts(chosen, study.retrieval.context), hospital_data.cases, hospital_data.neighbours
    )
    seen = open_examined(
        engine, hospital_data, cases, queries, study.retrieval.context, study.evaluation.tokens_per_pass
    )
    for each in tqdm(queries, desc="images", leave=False, disable=None):
        yield seen, each, answers[each.case.id]


def draw(hospital_data: Hospital, findings: Sequence[Finding], answers: dict[str, str], most: int) -> list[Any]:
    """Cases whose question or answer names a finding that their image has a mask of, and that got an answer."""
    names = {(each.image_id, each.name) for each in findings}
    about = [
        case
        for case in hospital_data.cases
        if answers.get(case.id)
        and any(image == case.image_id and name in f"{case.question} {case.answer}".lower() for image, name in names)
    ]
    rng = np.random.default_rng(SEED)
    mixed = [about[place] for place in rng.permutation(len(about))]
    return list({case.image_id: case for case in mixed}.values())[:most]


def judge(seen: Seen, query: Query, answer: str) -> dict[tuple[str, str], float]:
    """Every figure of one image."""
    rng = np.random.default_rng(SEED)
    explanation = explained(seen, query, answer)
    maps = {method: grid(explanation, method) for method in METHODS}
    covered = covered_cells(query.case, seen.findings, explanation.map("relevance"))
    assert covered is not None
    even = np.ones_like(covered)
    found: dict[tuple[str, str], float] = {}
    for method, weights in (maps | {"chance": even, "at best": covered}).items():
        found["pointing", method] = pointing(weights, covered)
        found["IoU", method] = overlap(weights, covered)
        found["on the finding", method] = float(as_map(weights)[covered > 0].sum())
    found |= curves(seen, query, answer, maps, rng)
    layers = len(seen.base.model.model.language_model.layers)
    for title, count in (("last layer at random", 1), ("all layers at random", layers)):
        with randomised(seen.base, count, SEED):
            other = explained(seen, query, answer)
        for method in METHODS:
            found[title, method] = correlation(maps[method], grid(other, method))
    for one, two in combinations(METHODS, 2):
        found["agreement", f"{one}, {two}"] = correlation(maps[one], maps[two])
    return {name: value for name, value in found.items() if not np.isnan(value)}


def curves(
    seen: Seen, query: Query, answer: str, maps: dict[str, Cells], rng: np.random.Generator
) -> dict[tuple[str, str], float]:
    """Areas under deletion and insertion, less the mean of random orders'."""
    shape = maps["relevance"].shape
    orders = [ranked(weights, rng) for weights in maps.values()]
    orders += [rng.permutation(shape[0] * shape[1]).tolist() for _ in range(ORDERS)]
    prompt = build_prompt(query.case, query.retrieved, query.similarities, seen.how)
    (example,) = encode(seen.base, seen.features, [replace(prompt, answer=answer)])
    areas = np.array(deletion_insertion(seen.base, seen.features, seen.images, example, shape, orders, seen.tokens))
    chance = areas[len(maps) :].mean(0)
    found = {}
    for method, area in zip(maps, areas, strict=False):
        found["deletion", method], found["insertion", method] = (area - chance).tolist()
    found["deletion", "chance"], found["insertion", "chance"] = chance.tolist()
    return found


def explained(seen: Seen, query: Query, answer: str) -> Explanation:
    """The answer explained by every method."""
    return explain(seen.base, seen.features, seen.images, query, seen.how, answer, METHODS, tokens=seen.tokens)


def grid(explanation: Explanation, method: str) -> Cells:
    """The method's map of the question's own image."""
    each = explanation.map(method)
    return np.reshape(each.weights, (each.rows, each.columns))


def correlation(one: Cells, other: Cells) -> float:
    """Spearman's, NaN where one of the maps is even."""
    found = rank_correlation(one, other)
    return float("nan") if found is None else found


COLUMNS = ("pointing", "IoU", "on the finding", "deletion", "insertion", "last layer at random", "all layers at random")


def report(figures: Figures) -> str:
    """Two Markdown tables: each method's figures, and how methods agree."""
    rows = [("", *COLUMNS), ("---",) * (len(COLUMNS) + 1)]
    rows += [(name, *(cell(figures, column, name) for column in COLUMNS)) for name in (*METHODS, "chance", "at best")]
    pairs = [("agreement of", "rank correlation"), ("---", "---")]
    pairs += [(pair, cell(figures, kind, pair)) for kind, pair in figures if kind == "agreement"]
    count = len(figures["pointing", "chance"])
    tables = ("\n".join(f"| {' | '.join(row)} |" for row in each) for each in (rows, pairs))
    return f"{count} images\n\n" + "\n\n".join(tables)


def cell(figures: Figures, figure: str, name: str) -> str:
    """A mean with its interval."""
    values = figures.get((figure, name))
    if not values:
        return ""
    mean = bootstrap_interval(values, range(len(values)), SEED)
    ends = "" if mean.interval is None else " [{:.2f}, {:.2f}]".format(*mean.interval)
    return f"{mean.value:.2f}{ends}"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts/latest"), int(sys.argv[2]) if len(sys.argv) > 2 else 60)
