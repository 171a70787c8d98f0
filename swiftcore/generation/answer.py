"""An answer that grows by one token at a time: its text, and the rules by which it ends.

Whoever chooses the tokens, a model in this process or a tool's server, the same code says where an
answer ends, which text it is and how many tokens it has.
"""

from dataclasses import dataclass, field

from swiftcore.generation.logprobs import AnswerLogprobs, TokenLogprob
from swiftcore.generation.params import Completion, Decode, Delta, FinishReason, SamplingParams
from swiftcore.generation.text import IncrementalText


@dataclass
class Request:
    """One answer in the making.

    Args:
        prompt: token ids.
        params: how to answer.
        index: which of several answers with one seed this is.
        streamed: text is wanted as it grows; otherwise it is decoded once, at the end.
    """

    prompt: list[int]
    params: SamplingParams
    index: int = 0
    streamed: bool = False
    tokens: list[int] = field(default_factory=list)


class GrowingAnswer:
    """Takes the tokens of one request and says what became certain.

    Args:
        request: its `tokens` grow here.
        stop_tokens: ids that end the answer, unless the request ignores them.
        decode: turns (token ids, skip special tokens) into text.
        max_model_len: most tokens of prompt and answer together.
    """

    def __init__(
        self, request: Request, stop_tokens: frozenset[int], decode: Decode, max_model_len: int
    ) -> None:
        params = request.params
        self.request = request
        self.limit = min(params.max_new_tokens, max_model_len - len(request.prompt))
        self._stop_tokens = stop_tokens
        self._decode = decode
        self._shown = ""
        self._text = None
        self._logprobs = AnswerLogprobs()
        if request.streamed or params.stop or params.kept_stop or params.logprobs:
            self._text = IncrementalText(
                lambda ids: decode(ids, params.skip_special_tokens), params.stop, params.kept_stop
            )

    def take(self, token: int, logprob: TokenLogprob | None = None) -> Delta:
        """Append a token; the piece of the last one carries the completion.

        Args:
            token: its id.
            logprob: how likely it was, where the request asks for that.
        """
        request, text = self.request, self._text
        request.tokens.append(token)
        ended = token in self._stop_tokens and not request.params.ignore_eos
        piece = text.push(token) if text and not ended else ""
        if logprob and text:
            self._logprobs.append(logprob, None if ended else text.start)
        reason: FinishReason | None = None
        if ended or (text and text.stopped):
            reason = "stop"
        elif len(request.tokens) >= self.limit:
            reason = "length"
        if reason is None:
            self._shown += piece
            return Delta(piece, logprobs=self._newly_shown(len(self._shown)))
        return self._finish(piece, reason, ended)

    def end(self, reason: FinishReason) -> Delta:
        """Finish an answer that ended without one of the tokens taken."""
        return self._finish("", reason, ended=False)

    def _finish(self, piece: str, reason: FinishReason, ended: bool) -> Delta:
        request, text = self.request, self._text
        if text:
            # The held text may complete nothing more, but a stop string can end in the last bytes.
            piece += text.finish()
            reason = "stop" if text.stopped else reason
            whole = self._shown + piece
        else:
            visible = request.tokens[:-1] if ended else request.tokens
            whole = piece = self._decode(visible, request.params.skip_special_tokens)
        if text and text.stopped:
            shown = self._newly_shown(len(whole))
        else:
            shown = self._logprobs.show(len(request.tokens) - ended)
        completion = Completion(
            request.tokens,
            whole,
            reason,
            len(request.prompt),
            len(request.tokens),
            self._logprobs.whole() if request.params.logprobs else None,
        )
        return Delta(piece if request.streamed else "", completion, shown)

    def _newly_shown(self, num_characters: int) -> tuple[TokenLogprob, ...]:
        return self._logprobs.show(self._logprobs.num_before(num_characters))
