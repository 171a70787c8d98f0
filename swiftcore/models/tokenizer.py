"""Tokenizers of models built here: a byte-level BPE trained on texts, or a copy of another one."""

import gzip
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import DataError, ModelMissing, UsageError
from swiftcore.models.chat_template import CHAT_TEMPLATE
from swiftcore.models.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD_TOKEN = "<|endoftext|>"
STOP_TOKEN = "<|im_end|>"
SPECIAL_TOKENS = (PAD_TOKEN, "<|im_start|>", STOP_TOKEN)
WORD_TOKENS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
# Splits contractions, words, single digits, punctuation and white space, as GPT-4's and Qwen's do.
_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    max_length: int,
    added_tokens: Iterable[str] = (),
    *,
    word_pattern: str | None = None,
) -> "PreTrainedTokenizerFast":
    """Return a byte-level BPE tokenizer with at most `vocab_size` entries, added tokens included.

    Args:
        texts: what the merges are learned from, in a fixed order.
        vocab_size: most entries; few or short texts give fewer.
        max_length: longest sequence of the model, in tokens.
        added_tokens: words that stay one token, beside those of ChatML and tool calls.
        word_pattern: regex that cuts text into the words that merges stay inside.

    Raises:
        DataError: there is no text.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = _unique((*WORD_TOKENS, *added_tokens))
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(word_pattern or _WORD_PATTERN), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(words),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_counted(texts), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=STOP_TOKEN,
        pad_token=PAD_TOKEN,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    return _complete(tokenizer, words)


def adopt_tokenizer(
    folder: Path, max_length: int, added_tokens: Iterable[str] = ()
) -> "PreTrainedTokenizerFast":
    """Return the tokenizer of another folder, with the tokens of ChatML and tool calls in it.

    Args:
        folder: holds tokenizer.json or tokenizer.json.gz, and tokenizer_config.json.
        max_length: longest sequence of the model, in tokens.
        added_tokens: further words that stay one token.

    Raises:
        ModelMissing: the files are not there.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        _unpack(folder, Path(scratch))
        tokenizer: Any = AutoTokenizer.from_pretrained(
            scratch, local_files_only=True, trust_remote_code=False
        )
    tokenizer.add_special_tokens({"eos_token": STOP_TOKEN, "pad_token": PAD_TOKEN})
    tokenizer.model_max_length = max_length
    return _complete(tokenizer, _unique((*WORD_TOKENS, *added_tokens)))


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja.

    The configuration names the class that every transformers since 4 knows; the one transformers 5
    writes is refused by older environments, such as those of inference engines.
    """
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "tokenizer_config.json")
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("backend", "extra_special_tokens", "name_or_path", "is_local"):
        config.pop(name, None)
    write_json(folder / "tokenizer_config.json", config)


def _complete(
    tokenizer: "PreTrainedTokenizerFast", words: tuple[str, ...]
) -> "PreTrainedTokenizerFast":
    from transformers import AddedToken

    known = tokenizer.get_added_vocab()
    start = [token for token in SPECIAL_TOKENS if token not in known]
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in start], True)
    new = [word for word in words if word not in known]
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in new])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _counted(texts: Iterable[str]) -> Iterable[str]:
    empty = True
    for text in texts:
        empty = empty and not text
        yield text
    if empty:
        raise DataError(
            "a tokenizer can't be trained without text",
            where="model.scratch",
            do="name a dataset with text, or a tokenizer in model.scratch.tokenizer",
        )


def _unpack(folder: Path, target: Path) -> None:
    config = folder / "tokenizer_config.json"
    plain, packed = folder / "tokenizer.json", folder / "tokenizer.json.gz"
    if not config.is_file() or not (plain.is_file() or packed.is_file()):
        raise ModelMissing(
            "the folder holds no tokenizer to copy",
            where=folder,
            expected="tokenizer.json or tokenizer.json.gz, and tokenizer_config.json",
            do="set model.scratch.tokenizer to a folder with these files",
        )
    shutil.copyfile(config, target / config.name)
    if plain.is_file():
        shutil.copyfile(plain, target / plain.name)
        return
    try:
        with gzip.open(packed, "rb") as source, (target / plain.name).open("wb") as out:
            shutil.copyfileobj(source, out)
    except (OSError, EOFError) as err:
        raise UsageError("the packed tokenizer can't be read", where=packed, found=err) from err


def _unique(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
