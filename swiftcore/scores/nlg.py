"""Overlap of generated text with a reference: ROUGE-1, ROUGE-2, ROUGE-L and BLEU-4."""

import math
from collections import Counter
from collections.abc import Sequence

from swiftcore.scores.text import rouge_l, tokenize

_BLEU_ORDER = 4


def nlg_metrics(prediction: str, reference: str) -> dict[str, float]:
    """Return rouge-1, rouge-2, rouge-l and bleu-4 of one prediction, each 0 to 1."""
    return {
        "rouge-1": rouge_n(prediction, reference, 1),
        "rouge-2": rouge_n(prediction, reference, 2),
        "rouge-l": rouge_l(prediction, reference),
        "bleu-4": bleu(prediction, reference),
    }


def rouge_n(prediction: str, reference: str, order: int) -> float:
    """Return the F-measure of common n-grams, counted as often as both have them.

    Texts too short for an n-gram agree when their words are equal.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, with beta = 1.
    """
    predicted, expected = tokenize(prediction), tokenize(reference)
    ours, theirs = _ngrams(predicted, order), _ngrams(expected, order)
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else float(predicted == expected)


def bleu(prediction: str, reference: str) -> float:
    """Return sentence BLEU of n-grams up to 4, a zero count taken as 1/2, 1/4, ... in its order.

    Source: Papineni et al., "BLEU", 2002; smoothing 3 of Chen and Cherry, "A Systematic Comparison
    of Smoothing Techniques for Sentence-Level BLEU", 2014.
    """
    predicted, expected = tokenize(prediction), tokenize(reference)
    if not predicted or not expected:
        return float(predicted == expected)
    if not set(predicted) & set(expected):
        return 0.0
    logs, zeros = 0.0, 0
    for order in range(1, _BLEU_ORDER + 1):
        ours = _ngrams(predicted, order)
        common: float = (ours & _ngrams(expected, order)).total()
        if not common:
            zeros += 1
            common = 1 / 2**zeros
        logs += math.log(common / max(1, ours.total()))
    brevity = min(0.0, 1 - len(expected) / len(predicted))
    return math.exp(brevity + logs / _BLEU_ORDER)


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
