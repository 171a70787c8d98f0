"""The transformers engine: batched generation with any causal language model."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swiftcore.errors import UsageError
from swiftcore.generation.answer import Request
from swiftcore.generation.decoding import Decoder
from swiftcore.generation.limits import DEFAULT_MODEL_LEN, PromptLimits, Stops
from swiftcore.generation.params import Completion, Delta, SamplingParams
from swiftcore.generation.rows import RowBatch
from swiftcore.generation.scored_text import text_ids, text_windows
from swiftcore.generation.text import decode_tokens
from swiftcore.progress import Progress, Silent


class TransformersEngine:
    """Answers token prompts with a model in this process.

    One thread generates at a time; a second caller waits. To serve many callers together, use
    `Batcher`.

    Args:
        model: causal language model, on its device.
        tokenizer: its tokenizer.
        stop_words: further strings that end an answer, as the chat template says. One that is a
            single token ends by id; others are added to every request's stop strings.
        max_model_len: most tokens of prompt and answer; default: what the model was made for.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_words: Sequence[str] = (),
        max_model_len: int | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        trained = getattr(model.config, "max_position_embeddings", None) or DEFAULT_MODEL_LEN
        self.max_model_len = min(max_model_len or trained, trained)
        self.vocab_size = _vocab_size(model)
        configs = (getattr(model, "generation_config", None), model.config)
        stops = Stops.of(configs, tokenizer, stop_words)
        self.stop_tokens, self.stop_strings = stops.tokens, stops.strings
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        model_dir: Path | str,
        *,
        adapter_dir: Path | str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        device: str = "cpu",
        num_threads: int | None = None,
        dtype: str | None = None,
        stop_words: Sequence[str] = (),
        max_model_len: int | None = None,
    ) -> "TransformersEngine":
        """Load a model folder, with an adapter over it where one is given.

        `num_threads` sets torch's CPU threads for the whole process. Pass the folder's `tokenizer`
        where it has been loaded already: one of 150,000 tokens takes two seconds.

        Raises:
            ModelMissing: there is no model in `model_dir`.
        """
        from swiftcore.models import load_model, load_tokenizer

        if num_threads:
            torch.set_num_threads(num_threads)
        model_dir = Path(model_dir)
        tokenizer = load_tokenizer(model_dir) if tokenizer is None else tokenizer
        if adapter_dir is None:
            model = load_model(model_dir, device=device, dtype=dtype)
        else:
            from swiftcore.tuners import load_adapter

            model = load_adapter(model_dir, Path(adapter_dir), device=device, dtype=dtype)
        # A PeftModel has the interface of the model it wraps.
        model = cast(PreTrainedModel, model)
        return cls(model, tokenizer, stop_words=stop_words, max_model_len=max_model_len)

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Answer all prompts, `batch_size` at a time.

        Prompts of similar length are prefilled together, and when half of the rows have ended
        others take their place. Results come in input order, `num_return` in a row for each prompt,
        and are the same for the same seed. `numbers` tells prompts apart that share the seed; by
        default these are their places.

        Raises:
            UsageError: a prompt is empty, or leaves no room for an answer; it says which one.
        """
        if batch_size < 1:
            raise UsageError("batch_size must be at least 1", found=batch_size)
        for position, prompt in enumerate(prompts):
            self.check_prompt(prompt, where=f"prompt {position}")
        count = params.num_return
        requests = [
            self.request(prompt, params, index=number * count + i)
            for number, prompt in zip(numbers or range(len(prompts)), prompts, strict=True)
            for i in range(count)
        ]
        finished = self._run(requests, batch_size, progress or Silent())
        return [finished[id(request)] for request in requests]

    def log_likelihoods(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        *,
        batch_size: int,
        progress: Progress | None = None,
    ) -> list[float]:
        """Return the log-likelihood of each continuation after its prompt, in nats.

        Raises:
            UsageError: a prompt or a continuation is empty, or both are longer than the context.
        """
        from swiftcore.generation.likelihood import log_likelihoods

        for position, (prompt, continuation) in enumerate(pairs):
            self.check_prompt([*prompt, *continuation[:-1]], where=f"prompt {position}")
            if not prompt or not continuation:
                raise UsageError("nothing to score", where=f"continuation {position}")
        with self._lock:
            return log_likelihoods(self.model, pairs, batch_size, progress or Silent())

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of plain text, without any that start or end a sequence."""
        return text_ids(self.tokenizer, text)

    def text_windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Cut a text into (token before, tokens to score) windows that cover it.

        The first token is scored after the tokenizer's start token, where it has one.
        """
        return text_windows(self.tokenizer, text, self.max_model_len)

    def stream(
        self, prompt: list[int], params: SamplingParams, *, number: int = 0
    ) -> Iterator[Delta]:
        """Answer one prompt piece by piece; the last piece carries the completion.

        `number` is the prompt's own among all that share a seed.

        Raises:
            UsageError: the prompt is empty or too long, or `num_return` is not 1.
        """
        if params.num_return != 1:
            raise UsageError("a stream has one answer; leave num_return at 1")
        self.check_prompt(prompt, where="prompt")
        return self._stream(self.request(prompt, params, index=number, streamed=True))

    def request(
        self, prompt: list[int], params: SamplingParams, *, index: int = 0, streamed: bool = False
    ) -> Request:
        """Return a request with this engine's own stop strings added."""
        if self.stop_strings and not params.ignore_eos:
            params = replace(params, stop=(*params.stop, *self.stop_strings))
        return Request(list(prompt), params, index, streamed)

    def decoder(self) -> Decoder:
        """Return a fresh decoding loop over this engine's model."""
        pad = self.tokenizer.pad_token_id
        return Decoder(
            RowBatch(self.model, pad if isinstance(pad, int) else 0),
            self.stop_tokens,
            self.decode,
            self.max_model_len,
        )

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        """Return the text of token ids, exactly as they stand."""
        return decode_tokens(self.tokenizer, ids, skip_special_tokens)

    def check_prompt(self, prompt: Sequence[int], *, where: str) -> None:
        """Refuse a prompt that can't be answered.

        Raises:
            UsageError: it is empty, leaves no room, or holds ids the model doesn't have.
        """
        PromptLimits(self.max_model_len, self.vocab_size).check(prompt, where=where)

    def _run(
        self, requests: list[Request], batch_size: int, progress: Progress
    ) -> dict[int, Completion]:
        # Longest first: memory problems show at once, and the last batches are the quick ones.
        waiting = sorted(requests, key=lambda request: len(request.prompt))
        finished: dict[int, Completion] = {}
        generated = 0
        with self._lock, torch.inference_mode():
            decoder = self.decoder()
            while waiting or len(decoder):
                free = batch_size - len(decoder)
                if waiting and decoder.can_admit and 2 * free >= batch_size:
                    group = [waiting.pop() for _ in range(min(free, len(waiting)))]
                    deltas = decoder.admit(group)
                else:
                    deltas = decoder.step()
                for request, delta in deltas:
                    if delta.completion:
                        finished[id(request)] = delta.completion
                        generated += delta.completion.completion_tokens
                        progress.update(
                            len(finished), len(requests), f"{generated} tokens generated"
                        )
        return finished

    def _stream(self, request: Request) -> Iterator[Delta]:
        with self._lock:
            decoder = self.decoder()
            with torch.inference_mode():
                deltas = decoder.admit([request])
            while True:
                for _, delta in deltas:
                    yield delta
                if not len(decoder):
                    return
                with torch.inference_mode():
                    deltas = decoder.step()


def _vocab_size(model: PreTrainedModel) -> int:
    embeddings = cast(torch.nn.Embedding, model.get_input_embeddings())
    return embeddings.weight.shape[0]
