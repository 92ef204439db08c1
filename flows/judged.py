"""What a comparison knows of each answer: judged from the hospitals' own files, with names that all runs share."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from tasks.records import Case, Outcome, Prediction, read_images, read_table
from tasks.score.outcomes import judge, number
from tasks.score.outcomes import outcomes as of_answers
from tasks.store import MANIFEST, ROOT, Ref
from tasks.store.runs import open_run


def outcomes(run: Path) -> dict[str, list[Outcome]]:
    """A finished run's outcomes by configuration; the trained one's name is `trained`.

    A case has the number of its id, and an image that of its bytes: the same case is known whichever hospital holds
    it, and the same image whichever seed put it to the test. What hospitals share need not tell that, and a
    comparison, which is a simulation on one machine, need not ask it of them.
    """
    study, places = open_run(run)
    found: dict[str, list[Outcome]] = {}
    for folders in places["hospitals"].values():
        cases = read_table(ROOT / folders["cases"] / "cases.parquet", Case)
        images = {case.id: case.image_id for case in cases}
        pictures = _pictures(_reference(folders["cases"]))
        answers = [
            row
            for place in folders["predictions"]
            for row in read_table(ROOT / place / "predictions.parquet", Prediction)
        ]
        judged = of_answers(answers, [judge(answer) for answer in answers], cases)
        for answer, row in zip(answers, judged, strict=True):
            known = replace(row, case=number(answer.case_id), image=pictures[images[answer.case_id]])
            found.setdefault("trained" if row.configuration == study.configuration else row.configuration, []).append(
                known
            )
    return found


def _reference(path: str) -> Ref:
    return Ref(path=path, digest=json.loads((ROOT / path / MANIFEST).read_text(encoding="utf-8"))["digest"])


@cache
def _pictures(cases: Ref) -> dict[str, int]:
    """The number of each of a hospital's images, by id: alike for the same bytes, whatever their ids."""
    return {
        image.id: number(hashlib.sha256(image.data).hexdigest())
        for image in read_images(cases.folder / "images.parquet")
    }
