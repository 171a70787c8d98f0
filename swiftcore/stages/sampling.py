"""`swift sample`: questions of a dataset become rows with the best of several answers."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Store
from swiftcore.inference.questions import questions_of_files
from swiftcore.inference.result_file import ResultFile
from swiftcore.progress import Progress
from swiftcore.recipe import DataSection, Runtime, TemplateSection
from swiftcore.recipe.sections import Dtype, SampleSection
from swiftcore.rejection_sampling.candidates import (
    cache_path,
    cached_candidates,
    candidates_path,
    read_candidates,
)
from swiftcore.rejection_sampling.places import find_output
from swiftcore.rejection_sampling.questions import (
    NamedQuestion,
    digest_of,
    name_questions,
    part_of,
)
from swiftcore.rejection_sampling.running import Work, draw_and_score
from swiftcore.rejection_sampling.scoring import RewardAsScorer, Scorer
from swiftcore.rejection_sampling.selection import Rule
from swiftcore.rejection_sampling.writing import SamplingReport, write_rows
from swiftcore.rewards import get_reward
from swiftcore.stages.answering_engines import opened_engine
from swiftcore.stages.contract import input_ref
from swiftcore.stages.inferring import check_params
from swiftcore.stages.model_folders import ModelFolders, find_folders, model_to_ask
from swiftcore.stages.resolve import resolve_reference
from swiftcore.training.plugins import load_plugins, plugin_digests

if TYPE_CHECKING:
    from swiftcore.evaluation.benchmarks.endpoint import EndpointModel
    from swiftcore.generation import SamplingParams
    from swiftcore.rejection_sampling.drawing import Drawer

_PLUGINS = "--external_plugins"
# What shapes candidates and their scores beside the model, the questions and the rewards.
_SHAPING = {
    *("num_return_sequences", "max_new_tokens", "temperature", "top_p", "top_k"),
    *("repetition_penalty", "stop_words", "orm_model", "engine_kwargs"),
}


@dataclass(frozen=True)
class SamplingOrder:
    """What is to be drawn, and where to.

    Args:
        section: how answers are drawn, scored and chosen.
        data: where questions come from.
        template: settings laid over the trained template.
        runtime: where to compute.
        store: of artifacts; remembers digests of files.
        model: reference of the model, or its name at an endpoint.
        adapters: at most one adapter over it.
        output_dir: folder for the rows.
        output_file: name in that folder; None: unfinished work of the same kind, else a new one.
        override: replace that file.
        progress: hears how far the work is.
        dtype: type of the model's weights; None: as stored.
    """

    section: SampleSection
    data: DataSection
    template: TemplateSection
    runtime: Runtime
    store: Store
    model: str | None
    adapters: list[str]
    output_dir: Path
    output_file: str | None
    override: bool
    progress: Progress
    dtype: Dtype | None = None


def sample_answers(order: SamplingOrder) -> SamplingReport:
    """Draw, score and choose answers; go on with what the same order left unfinished.

    Raises:
        UsageError: the output is there already, or a setting has no meaning.
        SwiftError: a source, a model, an engine or an endpoint is not what it should be.
    """
    section = order.section
    load_plugins(section.external_plugins, _PLUGINS)
    questions = _questions(order)
    sampler = _Sampler(order)
    made_of = sampler.made_of() | {"questions": digest_of(questions)}
    output = find_output(
        order.output_dir, order.output_file, made_of, section.data_range, override=order.override
    )
    work = Work(sampler.opened_drawer(output), sampler.scorer, section.questions_a_batch)
    with ResultFile(candidates_path(output), made_of) as file:
        draw_and_score(work, questions, file, order.progress)
        rule = Rule(section.n_best_to_keep, section.prm_threshold, section.easy_query_threshold)
        return write_rows(questions, read_candidates(file.path), rule, output)


class _Sampler:
    """Who answers and who scores, each opened when it is needed."""

    def __init__(self, order: SamplingOrder) -> None:
        self._order, self._section = order, order.section
        self._orm = None
        if self._section.orm_model is not None:
            self._orm = RewardAsScorer(self._section.orm_model, get_reward(self._section.orm_model))

    def made_of(self) -> dict[str, Any]:
        """Return everything that shapes candidates and scores, but for the questions."""
        section = self._section
        shaping = section.model_dump(mode="json", include=_SHAPING)
        engine = section.engine_section.model_dump(mode="json", exclude_defaults=True)
        return {
            **shaping,
            "engine": section.engine,
            "engine_settings": engine,
            "seed": section.drawing_seed,
            "answers_of": self._answers_of(),
            "template": self._order.template.model_dump(mode="json", exclude_defaults=True),
            "prm_model": self._prm_digest(),
            "external_plugins": plugin_digests(section.external_plugins, _PLUGINS),
        }

    @contextmanager
    def _drawer(self, log: Path) -> Iterator["Drawer"]:
        from swiftcore.rejection_sampling.drawing import CachedDrawer, EndpointDrawer, EngineDrawer

        order, section = self._order, self._section
        if section.engine == "no":
            given = "num_return_sequences" in section.model_fields_set
            most = section.num_return_sequences if given else None
            yield CachedDrawer(cached_candidates(section.cache_files), most)
        elif section.engine == "client":
            yield EndpointDrawer(self._endpoint, self._params, section.num_return_sequences)
        else:
            asked = model_to_ask(self._folders, order.template)
            special = set(asked.tokenizer.all_special_tokens) if asked.tokenizer else set()
            # A special token has no text: it ends an answer by its id.
            words = [word for word in section.stop_words if word in special]
            asked = replace(asked, stop_words=words, dtype=order.dtype)
            with opened_engine(
                asked, section.engine_section, order.runtime, log, order.progress
            ) as engine:
                check_params(engine, self._params, "swift sample")
                yield EngineDrawer(
                    engine,
                    self._params,
                    section.num_return_sequences,
                    section.answers_at_once,
                    asked.template.thinking_marks[0],
                )

    def opened_drawer(self, output: Path) -> "Callable[[], AbstractContextManager[Drawer]]":
        """Return what opens where candidates come from."""
        return lambda: self._drawer(output.with_name(f"{output.name}.engine.log"))

    def scorer(self) -> Scorer:
        """Return what scores the candidates; a reward model is loaded."""
        name = self._section.prm_model
        if name is None:
            return Scorer(self._orm)
        folders = self._prm_folders
        if folders is None:
            return Scorer(self._orm, RewardAsScorer(name, get_reward(name)))
        from swiftcore.rejection_sampling.reward_model import RewardModel

        runtime = self._order.runtime
        model = RewardModel.load(
            model_to_ask(folders, TemplateSection()),
            device=runtime.resolved_device(),
            num_threads=runtime.threads(),
            batch_size=self._section.answers_at_once,
        )
        return Scorer(self._orm, model)

    @cached_property
    def _params(self) -> "SamplingParams":
        from swiftcore.generation import SamplingParams

        section = self._section
        return SamplingParams(
            max_new_tokens=section.max_new_tokens,
            temperature=section.temperature,
            top_p=section.top_p,
            top_k=section.top_k,
            repetition_penalty=section.repetition_penalty,
            kept_stop=tuple(section.stop_words),
            seed=section.drawing_seed,
        )

    @cached_property
    def _folders(self) -> ModelFolders:
        order = self._order
        return find_folders(order.model, order.adapters, order.store)

    @cached_property
    def _endpoint(self) -> "EndpointModel":
        from swiftcore.evaluation.benchmarks.endpoint import EndpointModel, EndpointSettings

        section = self._section
        assert section.base_url is not None  # the section says so
        settings = EndpointSettings(
            section.base_url, self._order.model, num_concurrent=section.answers_at_once
        )
        key = os.environ.get("OPENAI_API_KEY")
        return EndpointModel(settings, api_key=key, flag="--base_url")

    def _answers_of(self) -> Any:
        section = self._section
        if section.engine == "no":
            paths = [cache_path(name) for name in section.cache_files]
            return [self._order.store.digests.sha256(path) for path in paths]
        if section.engine == "client":
            told = self._endpoint.as_dict()
            return {"url": told["url"], "model": told["model"]}
        return {**self._digests(self._folders), "torch_dtype": self._order.dtype}

    @cached_property
    def _prm_folders(self) -> ModelFolders | None:
        """The folders of the reward model; None for a registered reward, whose name is a word."""
        name = self._section.prm_model
        if name is None or not (Path(name).is_dir() or {"/", ":"} & {*name}):
            return None
        return find_folders(name, [], self._order.store)

    def _prm_digest(self) -> Any:
        name, folders = self._section.prm_model, self._prm_folders
        if name is None:
            return None
        if folders is None:
            get_reward(name)  # an unknown name is told before any answer is drawn
            return name
        from swiftcore.rejection_sampling.reward_model import require_one_output

        require_one_output(folders.model_dir, folders.adapter_dir)
        return self._digests(folders)

    def _digests(self, folders: ModelFolders) -> dict[str, str]:
        """Return what a model's files are known by."""
        found = {"model": self._digest(str(folders.model_dir))}
        if folders.adapter_dir is not None:
            found["adapter"] = self._digest(str(folders.adapter_dir))
        return found

    def _digest(self, folder: str) -> str:
        store = self._order.store
        return input_ref(resolve_reference(folder, store), store.digests).digest


def _questions(order: SamplingOrder) -> Sequence[NamedQuestion]:
    section = order.section
    named = name_questions(questions_of_files(order.data), order.template.system)
    part = part_of(named, section.data_range)
    if section.num_sampling_per_gpu_batches is None:
        return part
    return part[: section.num_sampling_per_gpu_batches * section.questions_a_batch]
