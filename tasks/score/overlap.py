"""How much an answer and its reference share: exact match, BLEU, ROUGE-L, token recall and F1, English and Chinese.

Each takes any two strings as they were written, and is from 0 to 1: 0 where either is blank, 1 for a perfect answer.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU

from tasks.text.meaning import meaning, same
from tasks.text.normalise import HAN

REMEMBERED = 2**16
"""Pairs of answer and reference whose scores are kept: the same few answers are given to many questions."""


class _Spaces(Tokenizer):
    """For text whose tokens are already parted by spaces; rouge-score's own tokeniser drops all but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


# Smoothing is sacrebleu's default, `exp`: the k-th n-gram order that matches nothing counts as 1/2**k of one match.
# Effective order leaves out the orders that the answer is too short to have.
WESTERN = BLEU(tokenize="13a", effective_order=True)
CHINESE = BLEU(tokenize="zh", effective_order=True)
ROUGE = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Spaces())


def bleu_signatures() -> list[str]:
    """How sacrebleu names the two BLEU settings in use: for references without and with Chinese characters."""
    for metric in (WESTERN, CHINESE):
        metric.sentence_score("a", ["a"])  # sacrebleu gives no signature before a first score
    return [str(metric.get_signature()) for metric in (WESTERN, CHINESE)]


@dataclass(frozen=True, slots=True)
class _Pair:
    """An answer and its reference, normalised and as tokens; neither is blank."""

    answer: str
    gold: str
    bleu: BLEU
    """BLEU with the reference's tokens."""

    @property
    def answer_tokens(self) -> str:
        """The answer's tokens, parted by spaces; as the reference's below."""
        return self.bleu.tokenizer(self.answer)

    @property
    def gold_tokens(self) -> str:
        return self.bleu.tokenizer(self.gold)


def _pair(prediction: str, reference: str) -> _Pair | None:
    answer, gold = meaning(prediction), meaning(reference)
    return _Pair(answer, gold, CHINESE if HAN.search(gold) else WESTERN) if answer and gold else None


def exact_match(prediction: str, reference: str) -> float:
    """1 where the answer says the same as the reference."""
    return float(bool(meaning(reference)) and same(prediction, reference))


@lru_cache(maxsize=REMEMBERED)
def bleu(prediction: str, reference: str) -> float:
    """BLEU of the one sentence (Papineni et al., ACL 2002), by sacrebleu."""
    pair = _pair(prediction, reference)
    return pair.bleu.sentence_score(pair.answer, [pair.gold]).score / 100 if pair else 0.0


@lru_cache(maxsize=REMEMBERED)
def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L (Lin, ACL workshop 2004), the F-measure, by rouge-score."""
    pair = _pair(prediction, reference)
    return ROUGE.score(pair.gold_tokens, pair.answer_tokens)["rougeL"].fmeasure if pair else 0.0


def token_recall(prediction: str, reference: str) -> float:
    """The share of the reference's tokens that the answer has."""
    shared, _, asked = _counts(prediction, reference)
    return shared / asked if shared else 0.0


def token_f1(prediction: str, reference: str) -> float:
    """The harmonic mean of token recall and token precision."""
    shared, said, asked = _counts(prediction, reference)
    return 2 * shared / (said + asked) if shared else 0.0


@lru_cache(maxsize=REMEMBERED)
def _counts(prediction: str, reference: str) -> tuple[int, int, int]:
    """Numbers of tokens: shared, of the answer, of the reference."""
    pair = _pair(prediction, reference)
    if pair is None:
        return 0, 0, 0
    said, asked = pair.answer_tokens.split(), pair.gold_tokens.split()
    return (Counter(said) & Counter(asked)).total(), len(said), len(asked)
