"""A small byte-level tokenizer with the control tokens of several families, made in memory."""

import functools
import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SHARED = Path(__file__).parents[2] / "shared"
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
WORDS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
CORPUS = [
    "You are a helpful assistant. What is the weather in Paris today? It is 21 degrees in Paris.",
    '{"name": "get_weather", "arguments": {"city": "Paris"}}',
    "system user assistant tools function call response im_start im_end eot_id endoftext",
    "Thought: I should look. Action: get_weather Action Input: Observation: Final Answer:",
] * 4

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]

QWEN2_5_LIKE = """\
{%- if messages[0].role == 'system' -%}
{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else -%}
{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. ' }}
{{- 'You are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role in ('user', 'assistant') -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


@functools.cache
def _backend() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in WORDS])
    return tokenizer


def small_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend().to_str()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = chat_template
    return tokenizer


# What is a control token in the published templates of /data/chat_templates, by its looks.
_CONTROL = re.compile(
    r"<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|\[/?[A-Z_]{3,30}\]|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad)>|</?seed:[a-z_]+>|<用户>|<AI>|<_[a-z]+>"
)


def tokenizer_for_template(source: str, **tokens: str) -> PreTrainedTokenizerFast:
    """The small tokenizer with every control token that a template's text names."""
    tokens = {"bos_token": "<BOS>", "eos_token": "<EOS>"} | tokens
    backend = Tokenizer.from_str(_backend().to_str())
    found = {*_CONTROL.findall(source), *tokens.values()}
    backend.add_tokens([AddedToken(text, special=True, normalized=False) for text in sorted(found)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
    tokenizer.chat_template = source
    return tokenizer


def published_templates() -> list[tuple[str, str]]:
    """Every real chat template of the shared folder: its name and its text."""
    folder = shared_file("data", "chat_templates")
    found: list[tuple[str, str]] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".jinja", ".json"):
            continue
        source = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            document = json.loads(source)
            source = document.get("chat_template") if isinstance(document, dict) else None
        # Generation settings name the file of their template in the same field.
        if source and "{" in source:
            found.append((path.relative_to(folder).as_posix(), source))
    return found


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    roles = ("user", "assistant")
    return messages + [
        {"role": roles[place % 2], "content": content} for place, content in enumerate(contents)
    ]


def labelled_text(tokenizer: PreTrainedTokenizerFast, encoded) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != -100])


def shared_file(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path.relative_to(SHARED.parent)} is not here")
    return path


@functools.cache
def _unpacked(name: str, folder: Path) -> Path:
    source = shared_file("data", "tokenizers", name)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    packed = (source / "tokenizer.json.gz").read_bytes()
    (target / "tokenizer.json").write_bytes(gzip.decompress(packed))
    config = source / "tokenizer_config.json"
    if config.exists():
        shutil.copy(config, target)
    return target


@functools.cache
def real_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerFast:
    path = _unpacked(name, folder)
    if (path / "tokenizer_config.json").exists():
        return AutoTokenizer.from_pretrained(path)
    return PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
