"""How much an answer and its reference share: BLEU, ROUGE-L, token recall and F1, in English and Chinese."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU

from tasks.text.meaning import meaning
from tasks.text.normalise import HAN


@dataclass(frozen=True, slots=True)
class Overlap:
    """What an answer shares with its reference, each from 0 to 1."""

    bleu: float = 0.0
    rouge_l: float = 0.0
    token_recall: float = 0.0
    f1: float = 0.0


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


@lru_cache(maxsize=2**16)  # the same few answers are given to many questions
def overlap(prediction: str, reference: str) -> Overlap:
    """What an answer shares with its reference, of any two strings as they were written; nothing where one is blank."""
    answer, gold = meaning(prediction), meaning(reference)
    if not answer or not gold:
        return Overlap()
    metric = CHINESE if HAN.search(gold) else WESTERN
    answer_tokens, gold_tokens = metric.tokenizer(answer), metric.tokenizer(gold)
    said, asked = answer_tokens.split(), gold_tokens.split()
    shared = (Counter(said) & Counter(asked)).total()
    return Overlap(
        bleu=exact(metric.sentence_score(answer, [gold]).score / 100),
        rouge_l=exact(ROUGE.score(gold_tokens, answer_tokens)["rougeL"].fmeasure),
        token_recall=exact(shared / len(asked)),
        f1=exact(2 * shared / (len(said) + len(asked))),
    )


def exact(score: float) -> float:
    """The nearest multiple of 2**-32.

    Floating-point sums of such numbers are exact up to two million rows, so a pooled score is the same bits however
    the rows were shared out. It also takes away what makes sacrebleu's best score 100.00000000000004.
    """
    return round(score * 2**32) / 2**32
