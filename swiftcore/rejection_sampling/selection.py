"""Which of a question's candidates are kept: a matter of their scores alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from swiftcore.rejection_sampling.candidates import Candidate, ScoredCandidates

# What is right counts more than any difference between process scores, which lie from 0 to 1.
_ORM_WEIGHT = 10.0


@dataclass(frozen=True)
class Rule:
    """How candidates are chosen.

    Args:
        n_best: most answers kept of a question.
        prm_threshold: a kept answer's process score is above it.
        easy_threshold: a question is left out when a larger share of its drawn answers is right;
            None keeps all.
    """

    n_best: int = 5
    prm_threshold: float = 0.0
    easy_threshold: float | None = None


@dataclass(frozen=True)
class Selection:
    """What is kept of a question.

    Args:
        kept: places of the candidates, best first.
        rejected: for each of them, the place of the worst candidate where it scores less.
        reason: why nothing is kept; None when something is.
    """

    kept: tuple[int, ...]
    rejected: tuple[int | None, ...]
    reason: str | None = None


def select(scored: ScoredCandidates, rule: Rule) -> Selection:
    """Choose among a question's candidates.

    An answer is kept when it is whole, its outcome reward is above 0 and its process score above
    the threshold, in the order of 10 times the outcome reward plus the process score, brought to 0
    to 1 over the question. Equals come in the order they were drawn, the dataset's own answer last.
    Of equal texts the first counts. Without any score all drawn answers that are whole are kept.
    """
    whole = [place for place, each in enumerate(scored.candidates) if not each.is_empty]
    if scored.orm is None and scored.prm is None:
        kept = [place for place in whole if _may_be_kept(scored.candidates[place])]
        return _kept(kept, [None] * len(kept)) if kept else _nothing(_why_not(scored))
    judged = [place for place in whole if _is_judged(scored, place)]
    if not judged:
        return _nothing(_why_not(scored))
    easy = _share_right(scored)
    if rule.easy_threshold is not None and easy is not None and easy > rule.easy_threshold:
        return _nothing(f"too easy: more than {rule.easy_threshold:g} of the answers are right")
    totals = _totals(scored, judged)
    ranked = sorted(judged, key=lambda place: -totals[place])
    good = [place for place in ranked if _passes(scored, place, rule)]
    kept = _without_copies(scored.candidates, good)[: rule.n_best]
    if not kept:
        return _nothing("no answer passes: none is whole, right and above the threshold")
    return _kept(kept, [_worst(scored, judged, totals, place) for place in kept])


def _why_not(scored: ScoredCandidates) -> str:
    """Say why there is nothing to choose from."""
    drawn = scored.drawn
    if scored.error is not None:
        return scored.error
    errors = [each.error for each in drawn if each.error is not None]
    if errors and len(errors) == len(drawn):
        return f"no answer came: {errors[0]}"
    if not any(not each.is_empty for each in drawn):
        return "every answer is empty"
    if scored.orm is None and scored.prm is None:
        return "every answer was cut off at max_new_tokens"
    return "no answer could be scored: is there a solution to compare with?"


def _may_be_kept(candidate: Candidate) -> bool:
    return not candidate.is_cut_off and not candidate.is_reference


def _is_judged(scored: ScoredCandidates, place: int) -> bool:
    return all(scores is None or scores[place] is not None for scores in (scored.orm, scored.prm))


def _share_right(scored: ScoredCandidates) -> float | None:
    """Return the share of drawn answers that are right; None where nobody can say."""
    if scored.orm is None:
        return None
    rewards = [
        reward
        for each, reward in zip(scored.candidates, scored.orm, strict=True)
        if reward is not None and not each.is_reference
    ]
    return sum(reward > 0 for reward in rewards) / len(rewards) if rewards else None


def _totals(scored: ScoredCandidates, places: Sequence[int]) -> dict[int, float]:
    process = _normalized({place: _score(scored.prm, place) for place in places})
    return {place: _ORM_WEIGHT * _score(scored.orm, place) + process[place] for place in places}


def _score(scores: Sequence[float | None] | None, place: int) -> float:
    value = None if scores is None else scores[place]
    return 0.0 if value is None else value


def _normalized(scores: dict[int, float]) -> dict[int, float]:
    """Bring scores to 0 to 1; all 0 where they are equal."""
    low, high = min(scores.values()), max(scores.values())
    width = high - low
    return {place: (score - low) / width if width else 0.0 for place, score in scores.items()}


def _passes(scored: ScoredCandidates, place: int, rule: Rule) -> bool:
    right = scored.orm is None or _score(scored.orm, place) > 0
    good = scored.prm is None or _score(scored.prm, place) > rule.prm_threshold
    return right and good and not scored.candidates[place].is_cut_off


def _without_copies(candidates: Sequence[Candidate], places: Sequence[int]) -> list[int]:
    first: dict[str, int] = {}
    for place in places:
        first.setdefault(candidates[place].text, place)
    return list(first.values())


def _worst(
    scored: ScoredCandidates, judged: Sequence[int], totals: dict[int, float], kept: int
) -> int | None:
    """Return the candidate with the least score, where it is less and another text."""
    drawn = [place for place in judged if not scored.candidates[place].is_reference]
    worst = min(drawn, key=lambda place: totals[place], default=kept)
    same = scored.candidates[worst].text == scored.candidates[kept].text
    return None if same or totals[worst] >= totals[kept] else worst


def _kept(kept: Sequence[int], rejected: Sequence[int | None]) -> Selection:
    return Selection(tuple(kept), tuple(rejected))


def _nothing(reason: str) -> Selection:
    return Selection((), (), reason)
