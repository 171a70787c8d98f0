"""A model, settings and rows become a result file; a model and a person, a conversation."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Store
from swiftcore.errors import UsageError
from swiftcore.inference.answers import Work, answer_questions
from swiftcore.inference.questions import Question
from swiftcore.inference.report import Summary, require_references, summarize
from swiftcore.inference.result_file import ResultFile
from swiftcore.inference.sampling import ChosenSampling, choose_sampling, with_room
from swiftcore.models.tasks import read_task
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime, TemplateSection
from swiftcore.recipe.sections import Dtype, InferSection, tool_settings
from swiftcore.recipe.tasks import Task
from swiftcore.serving.logprobs import TokenTexts
from swiftcore.stages.answering_engines import Answering, PromptedEngine, opened_engine
from swiftcore.stages.contract import input_ref
from swiftcore.stages.model_folders import ModelFolders, model_to_ask
from swiftcore.stages.resolve import resolve_reference

if TYPE_CHECKING:
    from swiftcore.generation import Delta, SamplingParams

RESULT_DIR = Path("result")
# What shapes answers beside the model, its template, the rows and the settings of sampling.
_SHAPING = {"infer_backend", "max_model_len", "reranker_use_activation", "response_prefix"}
# Requests that a tool gets at a time, where it has no setting of its own.
_REQUESTS_AT_A_TIME = 256


@dataclass(frozen=True)
class Inference:
    """What answers, and how.

    Args:
        folders: the model.
        section: the settings.
        template: settings laid over the trained template.
        runtime: where to compute.
        dtype: type of the weights; None: as stored.
        store: remembers digests of files.
        progress: hears how far the work is.
    """

    folders: ModelFolders
    section: InferSection
    template: TemplateSection
    runtime: Runtime
    dtype: Dtype | None
    store: Store
    progress: Progress

    @property
    def task(self) -> Task:
        """What the model was trained to do."""
        return read_task(self.folders.adapter_dir or self.folders.model_dir)

    def sampling(self) -> ChosenSampling:
        """Return how answers are generated, and who said so."""
        chosen = choose_sampling(self.section, self.folders.model_dir)
        given = "seed" in self.section.model_fields_set
        if self.section.infer_backend == "lmdeploy" and not given and not chosen.params.greedy:
            return replace(chosen, params=replace(chosen.params, seed=None))
        return chosen

    def model(self) -> Answering:
        """Return what an engine is opened for."""
        asked = model_to_ask(self.folders, self.template)
        prefix = self.section.response_prefix
        if prefix is not None:
            options = asked.template.options
            asked.template.options = replace(options, response_prefix=prefix)
        special = set(asked.tokenizer.all_special_tokens) if asked.tokenizer else set()
        return replace(
            asked,
            # A special token has no text: it ends an answer by its id.
            stop_words=[word for word in self.section.stop_words if word in special],
            max_model_len=self.section.max_model_len,
            dtype=self.dtype,
        )

    def opened(self, asked: Answering, log: Path) -> AbstractContextManager[PromptedEngine]:
        """Return the engine, for a `with` statement."""
        return opened_engine(asked, self.section, self.runtime, log, self.progress)


def answer_rows(
    inference: Inference,
    questions: Sequence[Question],
    path: Path | None,
    on_piece: "Callable[[Delta], None] | None" = None,
) -> tuple[Path, Summary]:
    """Write an answer for each question; go on with a file that the same work left unfinished.

    Args:
        inference: what answers.
        questions: what is asked.
        path: of the result file; None: a name that tells this work from other work.
        on_piece: hears each piece of each answer.

    Returns:
        the file, and what it holds.

    Raises:
        UsageError: something else made the file, or the engine can't do what is asked.
    """
    task = inference.task
    require_references(questions, inference.section.metric, "" if task.is_text else "label")
    asked = inference.model()
    made_of = _made_of(inference, asked, questions)
    path = path or default_path(inference.folders.label, made_of)
    with ResultFile(path, made_of) as file:
        if file.num_lines < len(questions):
            if task.is_text:
                _answer(inference, asked, questions, file, on_piece)
            else:
                _score(inference, asked, questions, file)
        return path, summarize(file.lines(), inference.section.metric, inference.section.seed)


def default_path(label: str, made_of: dict[str, Any]) -> Path:
    """Return a name for a result file: the same work finds it again."""
    import json

    written = json.dumps(made_of, sort_keys=True, default=str)
    digest = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
    return RESULT_DIR / file_name(label) / "infer_result" / f"{digest[:12]}.jsonl"


def file_name(label: str) -> str:
    """Return a label as a name of folders."""
    kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in label.strip("/"))
    return kept.lstrip("._-")[-80:] or "model"


def token_texts(section: InferSection, engine: PromptedEngine) -> TokenTexts | None:
    """Return what writes log-probabilities, where they are asked for."""
    return TokenTexts(engine.engine.tokenizer) if section.logprobs else None


def check_params(
    engine: PromptedEngine, params: "SamplingParams", where: str = "swift infer"
) -> None:
    """Refuse what an engine's tool can't do, before it is asked a thousand times.

    Raises:
        UsageError: with the reason.
    """
    why_not = getattr(engine.engine, "why_not", None)
    refused = why_not(params) if why_not is not None else None
    if refused:
        raise UsageError("This engine can't answer as asked.", where=where, found=refused)


def _answer(
    inference: Inference,
    asked: Answering,
    questions: Sequence[Question],
    file: ResultFile,
    on_piece: "Callable[[Delta], None] | None",
) -> None:
    section = inference.section
    log = file.path.with_name(f"{file.path.name}.engine.log")
    with inference.opened(asked, log) as engine:
        params = with_room(inference.sampling().params, section, engine.engine.max_model_len)
        check_params(engine, params)
        batch_size = section.max_batch_size
        if section.infer_backend != "pt":
            batch_size = min(section.vllm_max_num_seqs, _REQUESTS_AT_A_TIME)
        work = Work(
            engine,
            params,
            batch_size,
            section.write_batch_size,
            on_piece,
            prefix=section.response_prefix or "",
            texts=token_texts(section, engine),
            think_mark=asked.template.thinking_marks[0],
        )
        answer_questions(work, questions, file, inference.progress)


def _score(
    inference: Inference, asked: Answering, questions: Sequence[Question], file: ResultFile
) -> None:
    import torch

    from swiftcore.inference.scored import Scorer, score_questions

    torch.set_num_threads(inference.runtime.threads())
    section = inference.section
    scorer = Scorer.load(
        asked,
        inference.task,
        device=inference.runtime.resolved_device(),
        uses_sigmoid=section.reranker_use_activation,
    )
    score_questions(scorer, questions, file, section.max_batch_size, inference.progress)


def _made_of(
    inference: Inference, asked: Answering, questions: Sequence[Question]
) -> dict[str, Any]:
    """Return everything that shapes the answers."""
    from swiftcore.evaluation.samples import rows_digest

    section, folders = inference.section, inference.folders
    made_of = {
        "model": _digest(folders.model_dir, inference.store),
        "adapter": None
        if folders.adapter_dir is None
        else _digest(folders.adapter_dir, inference.store),
        "template": asked.template.settings,
        "torch_dtype": inference.dtype,
        "rows": rows_digest([{"row": q.row, "error": q.error} for q in questions]),
        **section.model_dump(mode="json", include=_SHAPING),
        **tool_settings(section),
    }
    if not inference.task.is_text:
        return made_of
    sampling = asdict(inference.sampling().params) | {"max_new_tokens": section.max_new_tokens}
    return made_of | {"sampling": sampling}


def _digest(folder: Path, store: Store) -> str:
    return input_ref(resolve_reference(str(folder), store), store.digests).digest
