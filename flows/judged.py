"""Judges each answer of a comparison's runs from the hospitals' files, with ids that are the same in all runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from tasks.records import Case, Outcome, Prediction, read_images, read_table
from tasks.records.copied import read_copied
from tasks.score.outcomes import judge, number
from tasks.score.outcomes import outcomes as of_answers
from tasks.store import MANIFEST, Ref, here
from tasks.store.runs import open_run


def outcomes(run: Path) -> dict[str, list[Outcome]]:
    """A finished run's outcomes by configuration; the trained configuration is called `trained`.

    An image's number is derived from its bytes, a case's as `case_number` does. So a case is recognised at any
    hospital, and an image under any seed. Hospitals do not share this: a comparison is a simulation on one machine,
    and reads their files.
    """
    study, places = open_run(run)
    found: dict[str, list[Outcome]] = {}
    for folders in places["hospitals"].values():
        cases = read_table(here(folders["cases"]) / "cases.parquet", Case)
        images = images_of_cases(folders["cases"], cases)
        answers = read_answers(folders["predictions"])
        judged = of_answers(answers, [judge(answer) for answer in answers], cases, read_copied(here(folders["cases"])))
        for answer, row in zip(answers, judged, strict=True):
            image = images[answer.case_id]
            known = replace(row, case=case_number(answer, image), image=image)
            found.setdefault("trained" if row.configuration == study.configuration else row.configuration, []).append(
                known
            )
    return found


def read_answers(places: Sequence[str]) -> list[Prediction]:
    """All answers in folders of predictions."""
    return [row for place in places for row in read_table(here(place) / "predictions.parquet", Prediction)]


def images_of_cases(place: str, cases: Iterable[Case]) -> Mapping[str, int]:
    """The number of each case's image, by the case's id."""
    numbers = pictures(_reference(place))
    return {case.id: numbers[case.image_id] for case in cases}


def case_number(answer: Prediction, image: int) -> int:
    """The number of an answered case: its id alone would take a case for another where a table's rows have moved."""
    return number("\n".join([answer.case_id, str(image), answer.question, answer.reference]))


def _reference(path: str) -> Ref:
    return Ref(path=path, digest=json.loads((here(path) / MANIFEST).read_text(encoding="utf-8"))["digest"])


@cache
def pictures(cases: Ref) -> dict[str, int]:
    """The number of each of a hospital's images, by id; images with the same bytes have the same number."""
    return {
        image.id: number(hashlib.sha256(image.data).hexdigest())
        for image in read_images(cases.folder / "images.parquet")
    }
