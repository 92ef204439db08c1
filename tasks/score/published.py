"""The scoring rules of LightFED and LLaVA-Med, for comparison with their published figures.

They are for comparison only: both give credit to some wrong answers (docs/scoring.md says which). Each takes any two
strings as written and returns a score from 0 to 1, and 0 where one is blank.

LightFED: `src/evaluation/metrics.py`. LLaVA-Med: `llava/eval/run_eval.py`, with our normalisation of texts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp

from tasks.records import Kind
from tasks.score.exact import exact
from tasks.text.normalise import normalise

LIGHTFED = ("Accuracy", "F1-Score", "BLEU", "ROUGE-L")
"""LightFED's four metrics, as it calls them."""


def lightfed(prediction: str, reference: str) -> float:
    """LightFED's rule of closed questions: right where the prediction contains the reference, or the reverse.

    An empty prediction scores 0 here, although every reference contains it.
    """
    answer, gold = _lowered(prediction, reference)
    return float(bool(answer and gold) and (gold in answer or answer in gold))


def lightfed_bleu(prediction: str, reference: str) -> float:
    """What LightFED calls BLEU: precision of the sets of words, with a brevity penalty."""
    answer, gold = (text.split() for text in _lowered(prediction, reference))
    if not answer or not gold:
        return 0.0
    brevity = 1.0 if len(answer) > len(gold) else exp(1 - len(gold) / len(answer))
    return brevity * len(set(answer) & set(gold)) / len(answer)


def lightfed_rouge_l(prediction: str, reference: str) -> float:
    """What LightFED calls ROUGE-L: recall of the sets of words."""
    answer, gold = (text.split() for text in _lowered(prediction, reference))
    return len(set(answer) & set(gold)) / len(gold) if answer and gold else 0.0


def llava_med_closed(prediction: str, reference: str) -> float:
    """LLaVA-Med's rule of closed questions as in its released script; the reference word for word is right too."""
    return max(llava_med_released(prediction, reference, "closed"), _verbatim(prediction, reference))


def llava_med_open(prediction: str, reference: str) -> float:
    """LLaVA-Med's token recall of open questions; the reference word for word scores 1."""
    return max(llava_med_released(prediction, reference, "open"), _verbatim(prediction, reference))


def llava_med_released(prediction: str, reference: str, kind: Kind) -> float:
    """LLaVA-Med's rule as in its released script: a closed question other than yes/no is never right."""
    answer, gold = _lowered(prediction, reference)
    if not answer or not gold:
        return 0.0
    rule = _recall if kind == "open" else _says
    return rule(normalise(answer), normalise(gold))


RULES = ("lightfed", "llava_med", "llava_med_released")
"""The published rules that judge single answers: a score of 1 is right, and a lower one is not."""


def disagreeing(scores: Mapping[str, float], *, correct: bool) -> dict[str, bool]:
    """Whether the verdict of each rule differs from ours, by rule, as `lightfed_differs`."""
    return {f"{rule}_differs": (scores[rule] == 1) != correct for rule in RULES}


def lightfed_summary(rows: Sequence[tuple[str, str, Kind]]) -> dict[str, float | None]:
    """LightFED's four metrics under their names; None where there is no question of a metric's kind.

    `rows` hold (prediction, reference, kind). `F1-Score` is the macro mean over all wordings that occur: each wrong
    wording is a class of its own.
    """
    from sklearn.metrics import f1_score

    closed = [row for row in rows if row[2] == "closed"]
    opened = [row[:2] for row in rows if row[2] == "open"]
    right = [lightfed(prediction, reference) for prediction, reference, _ in closed]
    golds = [reference.lower().strip() for _, reference, _ in closed]
    answers = [prediction.lower().strip() for prediction, _, _ in closed]
    mapped = [gold if hit else answer for gold, hit, answer in zip(golds, right, answers, strict=True)]
    figures = (
        _mean(right),
        float(f1_score(golds, mapped, average="macro", zero_division=0)) if closed else None,
        _mean([exact(lightfed_bleu(*pair)) for pair in opened]),
        _mean([exact(lightfed_rouge_l(*pair)) for pair in opened]),
    )
    return dict(zip(LIGHTFED, figures, strict=True))


def _lowered(prediction: str, reference: str) -> tuple[str, str]:
    return prediction.lower().strip(), reference.lower().strip()


def _verbatim(prediction: str, reference: str) -> float:
    answer, gold = _lowered(prediction, reference)
    return float(bool(answer and gold) and normalise(answer) == normalise(gold))


def _recall(prediction: str, reference: str) -> float:
    """Recall: the answer's words that the reference has, with repeats, over these and the reference's missed words."""
    answer, gold = Counter(prediction.split()), Counter(reference.split())
    hit = sum(count for word, count in answer.items() if word in gold)
    missed = sum(count for word, count in gold.items() if word not in answer)
    return hit / (hit + missed)


def _says(prediction: str, reference: str) -> float:
    return float(("yes" in prediction or "no" in prediction) and reference in prediction)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
