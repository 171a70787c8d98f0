"""`swift sample`: several answers to each question, the best of them kept as rows to train on."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Store
from swiftcore.cli.one_process import idle_settings, refuse_processes
from swiftcore.cli.options import Parser, add_store, print_json
from swiftcore.errors import DataError, UsageError
from swiftcore.progress import Silent, TerminalProgress
from swiftcore.recipe import DataSection, Runtime, TemplateSection
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.recipe.loading import read_section
from swiftcore.recipe.sections import SampleSection
from swiftcore.stages.releases import require_engine

if TYPE_CHECKING:
    from swiftcore.rejection_sampling.writing import SamplingReport

_TEXT = """Draw several answers to each question of a dataset, score them, and keep the best.

  swift sample --model FOLDER --dataset questions.jsonl --num_return_sequences 8 \\
      --orm_model accuracy --n_best_to_keep 1
  swift sample --model FOLDER --sampler_engine vllm --dataset questions.jsonl --prm_model REWARDS
  swift sample --sampler_type distill --base_url http://HOST:PORT/v1 --model TEACHER \\
      --dataset questions.jsonl --num_return_sequences 1
  swift sample --sampler_engine no --cache_files sample_output/first.jsonl \\
      --dataset questions.jsonl --orm_model math

Rows go to --output_file in --output_dir, with what was left out, and why, beside them. The same
command goes on with what an interrupted one left. Further flags are ms-swift's: --temperature,
--data_range, --prm_threshold, --easy_query_threshold, ...; swift args lists them. An endpoint's key
is read from OPENAI_API_KEY."""
# How questions are read. All else of a data section belongs to training.
_READING = (
    "dataset",
    "columns",
    "column_names",
    "custom_dataset_info",
    "custom_register_path",
    "dataset_shuffle",
    "data_seed",
    "model_name",
    "model_author",
)
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def main(argv: Sequence[str]) -> int:
    """Sample, and say what came of it; exit 3 when no question has an answer to keep."""
    options, flags = _parser().parse_known_args(argv[1:])
    values = recipe_from_flags("sample", flags)
    section = read_section(SampleSection, values["sample"], "sample")
    template = read_section(TemplateSection, values.get("template", {}), "template")
    runtime = read_section(Runtime, values.get("runtime", {}), "runtime")
    data = _data_section(values.get("data", {}))
    _refuse(options, section, values)
    refuse_processes(
        runtime,
        "use --sampler_engine vllm with --vllm_data_parallel_size, or --data_range for each",
    )
    require_engine(section.engine_section.infer_backend, runtime)
    from swiftcore.stages.sampling import SamplingOrder, sample_answers

    order = SamplingOrder(
        section,
        data,
        template,
        runtime,
        Store(options.store or runtime.store),
        options.model,
        options.adapters,
        options.output_dir,
        options.output_file,
        options.override_exist_file,
        Silent() if options.json else TerminalProgress("sample"),
        values.get("model", {}).get("torch_dtype"),
    )
    report = sample_answers(order)
    if options.json:
        print_json(report.as_dict())
    else:
        _print(report)
    return 0 if report.rows else DataError.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = Parser("swift sample", _TEXT)
    parser.add_argument("--model", help="folder, artifact or models:/name@alias; at an endpoint: "
                        "the model's name there")  # fmt: skip
    parser.add_argument("--adapters", nargs="+", default=[], help="adapter folder over the model")
    parser.add_argument("--output_dir", type=Path, default=Path("sample_output"))
    parser.add_argument("--output_file", help="name.jsonl in that folder; default: the time")
    parser.add_argument(
        "--override_exist_file",
        nargs="?",
        const=True,
        default=False,
        type=_truth,
        help="replace an output that is there already (default: false)",
    )
    add_store(parser)
    return parser


def _truth(word: str) -> bool:
    if word.lower() not in (*_TRUE, *_FALSE):
        raise argparse.ArgumentTypeError(f"takes true or false, found {word}")
    return word.lower() in _TRUE


def _data_section(given: dict[str, Any]) -> DataSection:
    """Return how questions are read; columns that a reward may want stay."""
    _refuse_idle([name for name in given if name not in _READING], "settings of how rows are read")
    values = {"remove_unused_columns": False, "dataset_shuffle": False, **given}
    return read_section(DataSection, values, "data")


def _refuse(options: argparse.Namespace, section: SampleSection, values: dict[str, Any]) -> None:
    """Refuse what would do nothing with this engine."""
    engine, template = section.engine, values.get("template", {})
    idle = [name for name in values.get("model", {}) if name != "torch_dtype"]
    idle += idle_settings(values.get("runtime", {}))
    expected = "settings of this engine"
    if engine in ("client", "no"):
        idle += [name for name in template if name != "system"]
        idle += ["adapters"] if options.adapters else []
        idle += ["torch_dtype"] if "torch_dtype" in values.get("model", {}) else []
    if engine == "no":
        idle += ["model"] if options.model else []
    elif engine != "client" and not options.model and not options.adapters:
        raise UsageError(
            "No model is named.",
            where="swift sample",
            expected="--model FOLDER, or --sampler_type distill with --base_url",
            do="swift sample --help shows examples",
        )
    _refuse_idle(idle, expected)


def _refuse_idle(names: list[str], expected: str) -> None:
    if names:
        raise UsageError(
            "A setting does nothing here.",
            where="swift sample",
            found=", ".join(f"--{name}" for name in names),
            expected=expected,
            do="leave it out",
        )


def _print(report: "SamplingReport") -> None:
    right = "" if report.right is None else f", {report.right} of them right"
    print(f"{report.questions} questions: {report.kept} with an answer to keep, {report.rows} rows")
    print(
        f"{report.drawn} answers{right}; {report.cut_off} cut off, {report.empty} empty, "
        f"{report.failed} failed"
    )
    for reason, count in report.left_out.most_common():
        print(f"  {count} left out: {reason}")
    for path in report.files.values():
        print(path)
