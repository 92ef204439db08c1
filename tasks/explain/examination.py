"""Examines answers for failure modes: perturbed answers, occlusion and relevance."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tasks.engine.attribution.occlusion import Box, boxes, without
from tasks.engine.base import Base
from tasks.engine.batch import Example, encode
from tasks.engine.engine import Engine
from tasks.engine.hospital import Hospital
from tasks.engine.prompt import Query, build_prompt
from tasks.engine.vision import Features
from tasks.explain.attribution import explain
from tasks.explain.burned_in import text_boxes
from tasks.explain.failures import Examination
from tasks.explain.maps import coverage
from tasks.records import Case, Finding, Image, Prediction, Saliency, read_findings, read_images
from tasks.records.perturbations import AS_IS, BLANK, FLIPPED, REMOVED
from tasks.records.pixels import to_rgb
from tasks.score.outcomes import judge
from tasks.settings import ContextSettings
from tasks.text.normalise import normalise

TENTHS = 10
"""Rows and columns of the grid whose outermost ring counts as an image's border."""


@dataclass(frozen=True)
class Seen:
    """The inputs of an examination: the base with its current adapter, and a hospital's images and findings."""

    base: Base
    features: Features
    images: Mapping[str, Image]
    findings: Sequence[Finding]
    how: ContextSettings
    tokens: int
    """Most tokens, padding included, in one forward pass."""


def open_examined(
    engine: Engine, hospital_data: Hospital, cases: Path, queries: Sequence[Query], how: ContextSettings, tokens: int
) -> Seen:
    """Open a hospital's images and masks of some queries and of their retrieved cases.

    Args:
        engine: the base with the hospital's adapter switched on.
        hospital_data: the hospital.
        cases: the folder of the stage `cases`.
        queries: the questions to examine.
        how: what the prompt shows of the retrieved cases.
        tokens: most tokens, padding included, in one forward pass.
    """
    wanted = {case.image_id for each in queries for case in (each.case, *each.retrieved)}
    images = {image.id: image for image in read_images(cases / "images.parquet") if image.id in wanted}
    findings = [each for each in read_findings(cases / "findings.parquet") if each.image_id in wanted]
    return Seen(engine.base, hospital_data.seen_by(engine).fixed(images), images, findings, how, tokens)


def answers_by_case(rows: Sequence[Prediction]) -> dict[str, dict[str, Prediction]]:
    """Answers by case, then by perturbation of the prompt."""
    found: dict[str, dict[str, Prediction]] = {}
    for row in rows:
        found.setdefault(row.case_id, {})[row.configuration] = row
    return found


def examine(seen: Seen, query: Query, answers: Mapping[str, Prediction]) -> Examination:
    """Collect what the failure modes of one answer are judged by.

    Args:
        seen: includes the features and images of the case and of its retrieved cases.
        query: the case and its retrieved cases.
        answers: answers by perturbation of the prompt (`tasks.records.perturbations`); `AS_IS` and `BLANK` must be
            among them.
    """
    given = answers[AS_IS]
    prompt = replace(build_prompt(query.case, query.retrieved, query.similarities, seen.how), answer=given.prediction)
    (example,) = encode(seen.base, seen.features, [prompt])
    blank, border, text = _falls(seen, query.case, example)
    explained = explain(
        seen.base, seen.features, seen.images, query, seen.how, given.prediction, ("relevance",), tokens=seen.tokens
    )
    found = explained.map("relevance")
    return Examination(
        case_id=query.case.id,
        reference=given.reference,
        prediction=given.prediction,
        correct=judge(given).correct,
        blank=answers[BLANK].prediction,
        retrieved_answers=tuple(case.answer for case in query.retrieved),
        unaided=tuple(answers[name].prediction for name in (REMOVED, FLIPPED) if name in answers),
        blank_fall=blank,
        border_fall=border,
        text_fall=text,
        weights=np.reshape(found.weights, (found.rows, found.columns)),
        covered=covered_cells(query.case, seen.findings, found),
    )


def _falls(seen: Seen, case: Case, example: Example) -> tuple[float, float, float | None]:
    """Falls of the answer's log-probability when the image, its border, and the text found in it are covered.

    The last is None if no text is found.
    """
    image = seen.images[case.image_id]
    text = text_boxes(np.asarray(to_rgb(image.data)))
    whole: list[Box] = [(0, 0, image.width, image.height)]
    covered = [[], whole, _border(seen.base, image), *([text] if text else [])]
    place = len(example.image_ids) - 1
    found = without(seen.base, seen.features, seen.images, example, place, covered, seen.tokens).sum(1)
    blank, border, *rest = (found[0] - found[1:]).tolist()
    return blank, border, rest[0] if rest else None


def _border(base: Base, image: Image) -> list[Box]:
    cells = boxes(base, image, TENTHS, TENTHS)
    return [box for place, box in enumerate(cells) if {0, TENTHS - 1} & set(divmod(place, TENTHS))]


def covered_cells(case: Case, findings: Sequence[Finding], found: Saliency) -> NDArray[np.float64] | None:
    """The share of each cell of a map that the relevant findings cover, `(rows, columns)`.

    A finding is relevant if the question or the answer names it. None if there is no mask of such a finding.
    """
    words = f" {normalise(f'{case.question} {case.answer}')} "
    masks = [
        np.asarray(PIL.Image.open(io.BytesIO(each.mask))) > 0
        for each in findings
        if each.image_id == case.image_id and f" {normalise(each.name)} " in words
    ]
    if not masks:
        return None
    left, upper, right, lower = (round(edge) for edge in found.window)
    return coverage(np.any(masks, axis=0)[upper:lower, left:right], found.rows, found.columns)
