"""`swift infer`: a model answers the rows of a dataset, or a person."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Store
from swiftcore.cli.one_process import idle_settings, refuse_processes
from swiftcore.cli.options import Parser, add_store, print_json
from swiftcore.cli.tables import print_table
from swiftcore.errors import Cancelled, DataError, UsageError
from swiftcore.progress import Silent, TerminalProgress
from swiftcore.recipe import DataSection, Runtime, TemplateSection
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.recipe.loading import read_section
from swiftcore.recipe.sections import InferSection
from swiftcore.stages.releases import require_engine

if TYPE_CHECKING:
    from swiftcore.generation import Delta
    from swiftcore.inference.conversation import ReadLine
    from swiftcore.inference.questions import Question
    from swiftcore.inference.report import Summary
    from swiftcore.stages.inferring import Inference

_TEXT = """Let a model answer: the rows of a dataset, or a person.

  swift infer --model FOLDER                                  a conversation
  swift infer --model FOLDER --val_dataset questions.jsonl    an answer to each row
  swift infer --adapters ADAPTER --load_data_args true        the rows held out of its training
  swift infer --model FOLDER --infer_backend vllm --val_dataset questions.jsonl --metric acc

Answers to rows go to a file of JSON lines, --result_path. The same command goes on with a file that
was left unfinished. Further flags are ms-swift's: --max_new_tokens, --temperature, --top_p,
--stop_words, --max_batch_size, --system, --template, ...; swift args lists them."""
# How rows are read. All else of a data section belongs to training.
_READING = (
    "dataset",
    "val_dataset",
    "columns",
    "column_names",
    "custom_dataset_info",
    "custom_register_path",
    "remove_unused_columns",
    "val_dataset_shuffle",
    "data_seed",
    "model_name",
    "model_author",
)
_OF_ROWS = (
    "result_path",
    "write_batch_size",
    "max_batch_size",
    "metric",
    "val_dataset_sample",
    "reranker_use_activation",
)
_OF_TEXT = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "stop_words",
    "response_prefix",
    "logprobs",
    "top_logprobs",
    "stream",
    "max_model_len",
    "write_batch_size",
)


def main(argv: Sequence[str]) -> int:
    """Answer rows or a person; exit 3 when a row or question was left without an answer."""
    parser = Parser("swift infer", _TEXT)
    parser.add_argument("--model", help="folder, artifact:FINGERPRINT or models:/name@alias")
    parser.add_argument("--adapters", nargs="+", default=[], help="adapter folder over the model")
    add_store(parser)
    options, flags = parser.parse_known_args(argv[1:])
    values = recipe_from_flags("infer", flags)
    section = read_section(InferSection, values["infer"], "infer")
    data = _data_section(values.get("data", {}), section)
    _refuse(options, section, values, answers_rows=data is not None or section.load_data_args)
    inference = _inference(options, section, values)
    if not inference.task.is_text:
        _refuse_scored(section, inference.task.task_type)
    if data is None and not section.load_data_args:
        return _converse(inference, as_json=options.json)
    questions = _questions(options, inference, data)
    return _answer_rows(inference, questions, as_json=options.json)


def _data_section(given: dict[str, Any], section: InferSection) -> DataSection | None:
    """Return how rows are read, as the dataset of a section; None where no file is named."""
    idle = [f"--{name}" for name in given if name not in _READING]
    sources = [f"--{name}" for name in ("dataset", "val_dataset") if given.get(name)]
    sources += ["--load_data_args"] if section.load_data_args else []
    if idle or len(sources) > 1:
        raise UsageError(
            "A setting does nothing in swift infer." if idle else "Rows are named twice.",
            where="swift infer",
            found=", ".join(idle or sources),
            expected="settings of how rows are read" if idle else "one of them",
            do="leave it out" if idle else "name all files after one --val_dataset",
        )
    if not given.get("dataset") and not given.get("val_dataset"):
        if given and not section.load_data_args:
            raise _nothing_to_do(given)
        return None
    named = {name: value for name, value in given.items() if name in _READING}
    rows = named.pop("val_dataset", None) or named.pop("dataset")
    shuffle = named.pop("val_dataset_shuffle", False)
    values = {"remove_unused_columns": False, **named, "dataset": rows, "dataset_shuffle": shuffle}
    return read_section(DataSection, values, "data")


def _nothing_to_do(given: dict[str, Any]) -> UsageError:
    return UsageError(
        "Settings of rows do nothing in a conversation.",
        where="swift infer",
        found=", ".join(f"--{name}" for name in given),
        expected="--val_dataset FILE",
        do="name a file of rows, or leave them out",
    )


def _refuse(
    options: argparse.Namespace,
    section: InferSection,
    values: dict[str, Any],
    *,
    answers_rows: bool,
) -> None:
    """Refuse what would do nothing."""
    if not options.model and not options.adapters:
        raise UsageError(
            "No model is named.",
            where="swift infer",
            expected="--model FOLDER, or --adapters ADAPTER",
            do="swift infer --help shows examples",
        )
    idle = [name for name in values.get("model", {}) if name != "torch_dtype"]
    idle += idle_settings(values.get("runtime", {}))
    if not answers_rows:
        unseen = () if options.json else ("logprobs", "top_logprobs")
        idle += [name for name in (*_OF_ROWS, *unseen) if name in section.model_fields_set]
    if section.load_data_args and values.get("data"):
        idle += list(values["data"])
    if options.json and section.stream:
        idle.append("stream")
    if answers_rows and section.stream and "max_batch_size" in section.model_fields_set:
        idle.append("max_batch_size")
    if idle:
        raise UsageError(
            "A setting does nothing here.",
            where="swift infer",
            found=", ".join(f"--{name}" for name in idle),
            expected="settings of rows with --val_dataset; streamed answers come one by one",
            do="leave it out",
        )


def _refuse_scored(section: InferSection, task_type: str) -> None:
    """Refuse settings of written answers for a model that gives scores."""
    idle = [name for name in _OF_TEXT if name in section.model_fields_set]
    idle += ["infer_backend"] if section.infer_backend != "pt" else []
    idle += ["metric rouge"] if section.metric == "rouge" else []
    if idle:
        raise UsageError(
            f"This is a {task_type} model: it scores texts, and writes none.",
            where="swift infer",
            found=", ".join(f"--{name}" for name in idle),
            expected="--val_dataset, --max_batch_size, --metric acc, --reranker_use_activation",
            do="leave it out",
        )


def _inference(
    options: argparse.Namespace, section: InferSection, values: dict[str, Any]
) -> "Inference":
    template = read_section(TemplateSection, values.get("template", {}), "template")
    runtime = read_section(Runtime, values.get("runtime", {}), "runtime")
    refuse_processes(
        runtime,
        "use --infer_backend vllm with --vllm_data_parallel_size or --vllm_tensor_parallel_size",
    )
    require_engine(section.infer_backend, runtime)
    from swiftcore.stages.inferring import Inference
    from swiftcore.stages.model_folders import find_folders

    store = Store(options.store or runtime.store)
    folders = find_folders(options.model, options.adapters, store)
    dtype = values.get("model", {}).get("torch_dtype")
    # Lines of progress would stand among the words of streamed answers.
    is_silent = options.json or section.stream
    progress = Silent() if is_silent else TerminalProgress("infer")
    return Inference(folders, section, template, runtime, dtype, store, progress)


def _questions(
    options: argparse.Namespace, inference: "Inference", data: DataSection | None
) -> "list[Question]":
    from swiftcore.inference.questions import (
        held_out_rows,
        questions_of_files,
        questions_of_rows,
    )
    from swiftcore.stages.resolve import resolve_reference

    sample = inference.section.val_dataset_sample
    if data is not None:
        return questions_of_files(data, sample)
    from swiftcore.artifacts import Artifact

    reference = options.adapters[-1] if options.adapters else options.model
    found = resolve_reference(reference, inference.store)
    rows, split = held_out_rows(found if isinstance(found, Artifact) else None, inference.store)
    return questions_of_rows(rows[:sample], split)


def _answer_rows(inference: "Inference", questions: "Sequence[Question]", *, as_json: bool) -> int:
    from swiftcore.stages.inferring import answer_rows

    section = inference.section
    if not as_json and inference.task.is_text:
        print(f"  settings  {inference.sampling().describe()}", file=sys.stderr)
    on_piece = _print_piece if section.stream else None
    path, summary = answer_rows(inference, questions, section.result_path, on_piece)
    if as_json:
        print_json({"path": str(path), **summary.as_dict()})
    else:
        _print_summary(path, summary)
    return DataError.exit_code if summary.failed else 0


def _print_summary(path: Path, summary: "Summary") -> None:
    if summary.metrics:
        print_table(
            ["metric", "value", "95 % interval", "n"],
            [
                [name, f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}", str(found.n)]
                for name, found in summary.metrics.items()
            ],
        )
    print(
        f"{summary.rows} rows: {summary.rows - summary.failed} answered, "
        f"{summary.cut_off} of them cut off, {summary.failed} failed"
    )
    for line in summary.commonest_errors():
        print(f"  {line}")
    print(path)


def _print_piece(delta: "Delta") -> None:
    print(delta.text, end="\n" if delta.completion else "", flush=True)


def _converse(inference: "Inference", *, as_json: bool) -> int:
    if not inference.task.is_text:
        raise UsageError(
            f"This is a {inference.task.task_type} model: it scores texts, and holds no "
            "conversation.",
            where="swift infer",
            do="name rows with --val_dataset",
        )
    from swiftcore.inference.conversation import Conversation
    from swiftcore.inference.sampling import with_room
    from swiftcore.stages.inferring import RESULT_DIR, check_params, file_name, token_texts

    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    chosen = inference.sampling()
    if at_terminal:
        print(f"  settings  {chosen.describe()}", file=sys.stderr)
    log = RESULT_DIR / file_name(inference.folders.label) / "engine.log"
    with inference.opened(inference.model(), log) as engine:
        params = with_room(chosen.params, inference.section, engine.engine.max_model_len)
        check_params(engine, params)
        # Ctrl-C stops an answer alone; a request to end has to end the conversation.
        signal.signal(signal.SIGTERM, _end)
        conversation = Conversation(
            engine,
            params,
            _line_reader(at_terminal),
            sys.stdout,
            is_styled=at_terminal,
            streams=inference.section.stream is not False,
            as_json=as_json,
            prefix=inference.section.response_prefix or "",
            texts=token_texts(inference.section, engine),
        )
        conversation.run()
    return DataError.exit_code if conversation.num_failed else 0


def _line_reader(at_terminal: bool) -> "ReadLine":
    """Return what reads lines: with a prompt and line editing for a person."""
    if not at_terminal:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        return _next_line
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() edits lines once it is imported

    def read(shown: str) -> str | None:
        try:
            return input(shown)
        except EOFError:
            print()
            return None

    return read


def _next_line(_shown: str) -> str | None:
    raw = sys.stdin.readline()
    return raw.removesuffix("\n") if raw else None


def _end(number: int, frame: FrameType | None) -> None:
    raise Cancelled("Stopped on request.", found=f"signal {signal.Signals(number).name}")
