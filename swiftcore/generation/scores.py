"""How likely a tool finds given tokens: vLLM's `prompt_logprobs`, asked for without an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.generation.dialects import NotAnAnswer


@dataclass(frozen=True)
class TokenScore:
    """One token after what stands before it.

    Args:
        token: its id.
        logprob: natural logarithm of its probability.
        best: that of the likeliest token in its place.
    """

    token: int
    logprob: float
    best: float

    @property
    def gap(self) -> float:
        """How much less likely than the best it is, in nats; 0 is what greedy decoding takes."""
        return self.best - self.logprob


def scores_body(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """Return the request for the log-probabilities of tokens; the tool insists on one more."""
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 1,
    }


def read_scores(reply: Mapping[str, Any], ids: Sequence[int], num_last: int) -> list[TokenScore]:
    """Return the scores of the last tokens of `ids`.

    Raises:
        NotAnAnswer: the reply has none.
    """
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    found = choice.get("prompt_logprobs") if isinstance(choice, Mapping) else None
    if not isinstance(found, list) or len(found) != len(ids):
        raise NotAnAnswer(f"no log-probabilities of the prompt: {str(reply)[:200]}")
    first = len(ids) - num_last
    return [_score(ids[place], found[place]) for place in range(first, len(ids))]


def _score(token: int, told: Any) -> TokenScore:
    try:
        return TokenScore(
            token,
            float(told[str(token)]["logprob"]),
            max(float(each["logprob"]) for each in told.values()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotAnAnswer(f"a log-probability that is none: {str(told)[:200]}") from error
