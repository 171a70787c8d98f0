"""What every engine holds prompts and answers against: stops, context, vocabulary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from swiftcore.errors import UsageError
from swiftcore.models.files import read_json, require_model_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MODEL_LEN = 2048


@dataclass(frozen=True)
class Stops:
    """Ids that end an answer, and the stop words that are more than one token."""

    tokens: frozenset[int]
    strings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        configs: Iterable[object],
        tokenizer: "PreTrainedTokenizerBase",
        stop_words: Sequence[str],
    ) -> "Stops":
        """Gather each `eos_token_id`, and the stop words of a template."""
        ids: set[int] = set()
        for source in (*configs, tokenizer):
            eos = getattr(source, "eos_token_id", None)
            ids.update([eos] if isinstance(eos, int) else eos or [])
        strings = []
        vocabulary = tokenizer.get_vocab()
        for word in stop_words:
            if word in vocabulary:
                ids.add(vocabulary[word])
            elif word:
                strings.append(word)
        return cls(frozenset(ids), tuple(strings))


@dataclass(frozen=True)
class PromptLimits:
    """What a prompt must fit: the context, answer included, and the number of token ids."""

    max_model_len: int
    vocab_size: int

    def check(self, prompt: Sequence[int], *, where: str) -> None:
        """Refuse a prompt that can't be answered.

        Raises:
            UsageError: it is empty, leaves no room, or holds ids the model doesn't have.
        """
        if not prompt:
            raise UsageError("the prompt has no tokens", where=where)
        if len(prompt) >= self.max_model_len:
            raise UsageError(
                "the prompt leaves no room for an answer",
                where=where,
                found=f"{len(prompt)} tokens",
                expected=f"fewer than {self.max_model_len}",
                do="shorten the prompt, or serve with a larger max_model_len",
            )
        if min(prompt) < 0 or max(prompt) >= self.vocab_size:
            raise UsageError(
                "the prompt holds a token id that the model doesn't have",
                where=where,
                found=f"ids from {min(prompt)} to {max(prompt)}",
                expected=f"ids from 0 to {self.vocab_size - 1}",
            )


def folder_limits(
    model_dir: Path,
    tokenizer: "PreTrainedTokenizerBase",
    stop_words: Sequence[str],
    max_model_len: int | None,
) -> tuple[PromptLimits, Stops]:
    """Return what a model folder says of itself, as the loaded model would.

    Raises:
        ModelMissing: there is no model in the folder.
    """
    require_model_folder(model_dir)
    config = read_json(model_dir / "config.json")
    text = config.get("text_config") or config
    generation = model_dir / "generation_config.json"
    sources = [config, text, read_json(generation) if generation.is_file() else {}]
    stops = Stops.of([SimpleNamespace(**source) for source in sources], tokenizer, stop_words)
    trained = text.get("max_position_embeddings") or DEFAULT_MODEL_LEN
    length = min(max_model_len or trained, trained)
    return PromptLimits(length, text.get("vocab_size") or len(tokenizer)), stops
