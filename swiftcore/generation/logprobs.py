"""How likely the tokens of an answer were, told with the text that they make.

A log-probability is that of the model's own logits, at temperature 1: temperature, top_p, top_k and
the repetition penalty change which token is drawn, not what is told of it. OpenAI and vLLM tell the
same.
"""

from dataclasses import dataclass, replace
from itertools import takewhile


@dataclass(frozen=True)
class TokenLogprob:
    """One token of an answer after what stands before it.

    Args:
        token: its id.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens in its place with their log-probabilities, likeliest first; as
            many as were asked for, the token itself only if it is one of them.
        offset: character of the answer's text where its own text begins; tokens that share a
            character share it. None: it shows nowhere, as it ended the answer.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    offset: int | None = None


class AnswerLogprobs:
    """The log-probabilities of a growing answer, given out as its text is."""

    def __init__(self) -> None:
        self._tokens: list[TokenLogprob] = []
        self._num_shown = 0

    def append(self, logprob: TokenLogprob, offset: int | None) -> None:
        """Take the next token, whose text begins at a character; None: it ends the answer."""
        self._tokens.append(replace(logprob, offset=offset))

    def num_before(self, num_characters: int) -> int:
        """Return how many of the tokens begin within the first characters."""
        rest = self._tokens[self._num_shown :]
        begun = takewhile(
            lambda told: told.offset is not None and told.offset < num_characters, rest
        )
        return self._num_shown + sum(1 for _ in begun)

    def show(self, count: int) -> tuple[TokenLogprob, ...]:
        """Return those of the first `count` tokens that were not returned before."""
        shown = tuple(self._tokens[self._num_shown : count])
        self._num_shown = max(self._num_shown, count)
        return shown

    def whole(self) -> list[TokenLogprob]:
        """Return all tokens, once the last was shown."""
        hidden = [replace(each, offset=None) for each in self._tokens[self._num_shown :]]
        return [*self._tokens[: self._num_shown], *hidden]
