"""The scoring rules of LightFED and LLaVA-Med, so that their published figures can be met on their own terms.

They are for comparison alone: both credit answers that are wrong (docs/scoring.md says which).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from sklearn.metrics import f1_score

from tasks.records import Kind
from tasks.score.overlap import exact
from tasks.text.normalise import normalise


@dataclass(frozen=True, slots=True)
class Published:
    """One answer under the published rules, each from 0 to 1."""

    lightfed: float = 0.0
    """Whether one of prediction and reference stands in the other: LightFED's rule of closed questions."""
    lightfed_bleu: float = 0.0
    """What LightFED calls BLEU."""
    lightfed_rouge_l: float = 0.0
    """What LightFED calls ROUGE-L."""
    llava_med: float = 0.0
    """LLaVA-Med's: of closed questions whether it is right, of open ones token recall."""
    llava_med_released: float = 0.0
    """The same as its released script has it: closed questions not of yes and no are never answered rightly."""


def published(prediction: str, reference: str, kind: Kind) -> Published:
    """An answer under the published rules, of any two strings as they were written; nothing where one is blank.

    LightFED: `src/evaluation/metrics.py`; an empty prediction, which stands in every reference, scores 0 here.
    LLaVA-Med: `llava/eval/run_eval.py`, its texts normalised as everywhere here.
    """
    said, asked = prediction.lower().strip(), reference.lower().strip()
    if not said or not asked:
        return Published()
    released = (
        _recall(normalise(said), normalise(asked)) if kind == "open" else _says(normalise(said), normalise(asked))
    )
    verbatim = normalise(said) == normalise(asked)
    return Published(
        float(asked in said or said in asked),
        *_sets(said.split(), asked.split()),
        llava_med=max(released, float(verbatim)),
        llava_med_released=released,
    )


RULES = ("lightfed", "llava_med", "llava_med_released")
"""The published rules that judge an answer; 1 is right, and less is not."""


def disagreeing(scored: Published, *, correct: bool) -> dict[str, bool]:
    """By rule, as `lightfed_differs`, whether its verdict on an answer is another than ours."""
    return {f"{rule}_differs": (getattr(scored, rule) == 1) != correct for rule in RULES}


def lightfed_summary(rows: Sequence[tuple[str, str, Kind]]) -> dict[str, float | None]:
    """LightFED's four metrics under their names, of (prediction, reference, kind); None where no question is of a kind.

    `F1-Score` is the macro mean over all wordings that occur, each wrong one being a class of its own.
    """
    closed = [row for row in rows if row[2] == "closed"]
    right = [published(*row).lightfed for row in closed]
    opened = [published(*row) for row in rows if row[2] == "open"]
    asked = [reference.lower().strip() for _, reference, _ in closed]
    said = [prediction.lower().strip() for prediction, _, _ in closed]
    mapped = [gold if hit else answer for gold, hit, answer in zip(asked, right, said, strict=True)]
    return {
        "Accuracy": _mean(right),
        "F1-Score": float(f1_score(asked, mapped, average="macro", zero_division=0)) if closed else None,
        "BLEU": _mean([score.lightfed_bleu for score in opened]),
        "ROUGE-L": _mean([score.lightfed_rouge_l for score in opened]),
    }


def _sets(said: list[str], asked: list[str]) -> tuple[float, float]:
    """LightFED's BLEU and ROUGE-L: precision and recall of the sets of words, the first with a brevity penalty."""
    common = len(set(said) & set(asked))
    brevity = 1.0 if len(said) > len(asked) else exp(1 - len(asked) / len(said))
    return exact(brevity * common / len(said)), exact(common / len(asked))


def _recall(said: str, asked: str) -> float:
    """Shared words as often as the answer repeats them, over these and the missed ones as often as asked."""
    answer, gold = Counter(said.split()), Counter(asked.split())
    hit = sum(count for word, count in answer.items() if word in gold)
    missed = sum(count for word, count in gold.items() if word not in answer)
    return exact(hit / (hit + missed))


def _says(said: str, asked: str) -> float:
    return float(("yes" in said or "no" in said) and asked in said)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
