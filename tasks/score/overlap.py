"""Text overlap of an answer and its reference: exact match, BLEU, ROUGE-L, token recall and F1; English and Chinese.

Each function takes any two strings as written and returns a score from 0 to 1: 0 where either is blank, 1 for a perfect
answer.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from sacrebleu.metrics.bleu import BLEU

from tasks.text.meaning import meaning, same
from tasks.text.normalise import HAN

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

REMEMBERED = 2**16
"""Size of the caches of scores, in pairs of answer and reference: the same few answers are given to many questions."""


class _Spaces:
    """Splits text whose tokens are already separated by spaces; rouge-score's own tokeniser keeps only a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


# Smoothing is sacrebleu's default, `exp`: the k-th n-gram order that matches nothing counts as 1/2**k of one match.
# Effective order leaves out the orders that the answer is too short to have.
WESTERN = BLEU(tokenize="13a", effective_order=True)
CHINESE = BLEU(tokenize="zh", effective_order=True)


@cache
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # with NLTK and SciPy, which take seconds

    return RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Spaces())


def bleu_signatures() -> list[str]:
    """Sacrebleu's signatures of the two BLEU settings in use: for references without and with Chinese characters."""
    for metric in (WESTERN, CHINESE):
        metric.sentence_score("a", ["a"])  # sacrebleu gives no signature before a first score
    return [str(metric.get_signature()) for metric in (WESTERN, CHINESE)]


@dataclass(frozen=True, slots=True)
class _Pair:
    """An answer and its reference, normalised and as tokens; neither is blank."""

    answer: str
    gold: str
    bleu: BLEU
    """BLEU with the tokeniser of the reference's language."""

    @property
    def answer_tokens(self) -> str:
        """The answer's tokens, separated by spaces."""
        return self.bleu.tokenizer(self.answer)

    @property
    def gold_tokens(self) -> str:
        return self.bleu.tokenizer(self.gold)


def _pair(prediction: str, reference: str) -> _Pair | None:
    answer, gold = meaning(prediction), meaning(reference)
    return _Pair(answer, gold, CHINESE if HAN.search(gold) else WESTERN) if answer and gold else None


def exact_match(prediction: str, reference: str) -> float:
    """1 where the answer means the same as the reference, else 0."""
    return float(bool(meaning(reference)) and same(prediction, reference))


@lru_cache(maxsize=REMEMBERED)
def bleu(prediction: str, reference: str) -> float:
    """Sentence BLEU (Papineni et al., ACL 2002), by sacrebleu."""
    pair = _pair(prediction, reference)
    return pair.bleu.sentence_score(pair.answer, [pair.gold]).score / 100 if pair else 0.0


@lru_cache(maxsize=REMEMBERED)
def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L (Lin, ACL workshop 2004), the F-measure, by rouge-score."""
    pair = _pair(prediction, reference)
    return _rouge().score(pair.gold_tokens, pair.answer_tokens)["rougeL"].fmeasure if pair else 0.0


def token_recall(prediction: str, reference: str) -> float:
    """The share of the reference's tokens that are in the answer."""
    shared, _, in_reference = _counts(prediction, reference)
    return shared / in_reference if shared else 0.0


def token_f1(prediction: str, reference: str) -> float:
    """The harmonic mean of token recall and token precision."""
    shared, in_answer, in_reference = _counts(prediction, reference)
    return 2 * shared / (in_answer + in_reference) if shared else 0.0


@lru_cache(maxsize=REMEMBERED)
def _counts(prediction: str, reference: str) -> tuple[int, int, int]:
    """Token counts: shared, of the answer, of the reference."""
    pair = _pair(prediction, reference)
    if pair is None:
        return 0, 0, 0
    answer, gold = pair.answer_tokens.split(), pair.gold_tokens.split()
    return (Counter(answer) & Counter(gold)).total(), len(answer), len(gold)
