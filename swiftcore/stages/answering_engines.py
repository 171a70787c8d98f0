"""The engines that answer in an evaluation: transformers in this process, or a tool beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.errors import SwiftError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import EvaluateSection, Runtime
from swiftcore.recipe.sections import Dtype, InferSection, tool_settings
from swiftcore.serving.release import Release
from swiftcore.stages.releases import start_patience

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from swiftcore.generation import (
        Completion,
        Delta,
        SamplingParams,
        ToolEngine,
        TransformersEngine,
    )
    from swiftcore.template import Template

EngineSection = EvaluateSection | InferSection
_ADAPTER = "adapter"


@dataclass(frozen=True)
class PromptedEngine:
    """An engine with the template that training used, whatever folder the model came from."""

    engine: "TransformersEngine | ToolEngine"
    template: "Template"

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: "SamplingParams",
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> "list[Completion]":
        """Answer all prompts, in order; `numbers` tells those apart that share a seed."""
        return self.engine.generate(
            prompts, params, batch_size=batch_size, progress=progress, numbers=numbers
        )

    def stream(
        self, prompt: list[int], params: "SamplingParams", *, number: int = 0
    ) -> "Iterator[Delta]":
        """Answer one prompt piece by piece; `number` is its own among all that share a seed."""
        return self.engine.stream(prompt, params, number=number)

    def log_likelihoods(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        *,
        batch_size: int,
        progress: Progress | None = None,
    ) -> list[float]:
        """Score continuations of prompts."""
        return self.engine.log_likelihoods(pairs, batch_size=batch_size, progress=progress)

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of plain text."""
        return self.engine.text_ids(text)

    def text_windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Cut a text into windows to score."""
        return self.engine.text_windows(text)


@dataclass(frozen=True)
class PromptedTool(PromptedEngine):
    """A tool's engine, which knows of each prompt whether it was answered."""

    engine: "ToolEngine"

    def answer_each(
        self,
        prompts: Sequence[list[int]],
        params: "SamplingParams",
        *,
        batch_size: int,
        progress: Progress | None = None,
        numbers: Sequence[int] | None = None,
    ) -> "list[Completion | SwiftError]":
        """Answer all prompts; one that fails spoils no other."""
        return self.engine.answer_each(
            prompts, params, batch_size=batch_size, progress=progress, numbers=numbers
        )


@dataclass(frozen=True)
class Answering:
    """What is to answer.

    Args:
        model_dir: model folder.
        adapter_dir: adapter over it.
        template: writes the prompts.
        tokenizer: of the model, where it is loaded already.
        stop_words: texts that end an answer beside the template's, cut from it.
        max_model_len: most tokens of prompt and answer; default: what the model was made for.
        dtype: type of the weights; default: as they are stored.
    """

    model_dir: Path
    adapter_dir: Path | None
    template: "Template"
    tokenizer: "PreTrainedTokenizerBase | None" = None
    stop_words: Sequence[str] = ()
    max_model_len: int | None = None
    dtype: Dtype | None = None

    @property
    def all_stop_words(self) -> list[str]:
        """The template's stop words, and the further ones."""
        return [*self.template.stop_words, *self.stop_words]


@contextmanager
def opened_engine(
    asked: Answering,
    section: EngineSection,
    runtime: Runtime,
    log: Path,
    progress: Progress | None = None,
) -> Iterator[PromptedEngine]:
    """Yield the engine that a section names; a tool ends with the block.

    Args:
        asked: the model and its template.
        section: `infer_backend` and the tool's settings.
        runtime: where to compute.
        log: takes what a tool prints.
        progress: hears of a tool's start.

    Raises:
        BackendMissing, BackendFailed: the tool is not there, or does not start.
        UsageError: it can't serve this model.
    """
    if section.infer_backend != "pt":
        with _opened_tool(asked, section, runtime, log, progress or Silent()) as engine:
            yield engine
        return
    from swiftcore.generation import TransformersEngine

    engine = TransformersEngine.load(
        asked.model_dir,
        adapter_dir=asked.adapter_dir,
        tokenizer=asked.tokenizer,
        device=runtime.resolved_device(),
        num_threads=runtime.threads(),
        dtype=asked.dtype,
        stop_words=asked.all_stop_words,
        max_model_len=asked.max_model_len,
    )
    yield PromptedEngine(engine, asked.template)


@contextmanager
def _opened_tool(
    asked: Answering, section: EngineSection, runtime: Runtime, log: Path, progress: Progress
) -> Iterator[PromptedTool]:
    from swiftcore.backends import ServeOrder, start_tool_server
    from swiftcore.generation.tool_model import engine_of, stored_dtype
    from swiftcore.models import load_tokenizer

    assert section.infer_backend != "pt"
    order = ServeOrder(
        section.infer_backend,
        asked.model_dir,
        adapters={} if asked.adapter_dir is None else {_ADAPTER: asked.adapter_dir},
        settings=section,
        dtype=asked.dtype or stored_dtype(asked.model_dir),
        max_model_len=asked.max_model_len,
        device="auto" if runtime.device == "mps" else runtime.device,
    )
    seconds = start_patience(section.infer_backend, runtime)
    with start_tool_server(
        order, log=log, runtime=runtime, timeout_seconds=seconds, progress=progress
    ) as server:
        tokenizer = asked.tokenizer or load_tokenizer(asked.model_dir)
        adapter = None if asked.adapter_dir is None else _ADAPTER
        engine = engine_of(server, order, tokenizer, asked.all_stop_words, adapter)
        try:
            yield PromptedTool(engine, asked.template)
        finally:
            engine.close()


def release_to_question(
    name: str,
    model_dir: Path,
    adapter_dir: Path | None,
    section: EvaluateSection,
    runtime: Runtime,
    max_new_tokens: int,
) -> Release:
    """Return a model as it is served for another tool's questions, under one name.

    Args:
        name: that questions use.
        model_dir: model folder.
        adapter_dir: adapter over it.
        section: `infer_backend` and its settings.
        runtime: where to compute.
        max_new_tokens: longest answer.
    """
    on_tool = section.infer_backend != "pt"
    beside = on_tool and adapter_dir is not None
    return Release(
        fingerprint=name,
        name=f"base-of-{name}" if beside else name,
        version=None,
        model_dir=model_dir,
        adapter_dir=None if beside else adapter_dir,
        device=runtime.device if on_tool else runtime.resolved_device(),
        num_threads=runtime.threads(),
        max_new_tokens=max_new_tokens,
        infer_backend=section.infer_backend,
        backend_settings=tool_settings(section),
        adapters={name: adapter_dir} if beside and adapter_dir else {},
        backends_dir=runtime.backends_dir if on_tool else None,
    )
