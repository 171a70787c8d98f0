"""`swift eval`: a model, an adapter, a registered version or a served endpoint on benchmarks."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Store
from swiftcore.cli.eval_tools import (
    ask_endpoint,
    ask_folders,
    file_name,
    refuse_template,
    work_dir,
)
from swiftcore.cli.options import Parser, add_store, print_json
from swiftcore.cli.tables import print_table
from swiftcore.errors import UsageError
from swiftcore.progress import Progress, Silent, TerminalProgress
from swiftcore.recipe import EvaluateSection, Runtime
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.recipe.loading import read_section
from swiftcore.recipe.sections import TemplateSection, ToolSettings
from swiftcore.stages.releases import require_engine

if TYPE_CHECKING:
    from swiftcore.evaluation.report import EvaluationReport
    from swiftcore.stages.model_folders import ModelFolders

_TEXT = """Evaluate a model on benchmarks whose files are on this machine.

  swift eval --model FOLDER --eval_dataset gsm8k mmlu --eval_dataset_dir data/eval
  swift eval --model models:/name@champion --eval_dataset ifeval --eval_limit 100
  swift eval --model BASE --adapters ADAPTER --eval_dataset arc
  swift eval --model FOLDER --infer_backend vllm --eval_dataset gsm8k
  swift eval --eval_url http://127.0.0.1:8765/v1 --eval_dataset humaneval
  swift eval --eval_url http://127.0.0.1:8765/v1 --eval_backend EvalScope --eval_dataset gsm8k

Further flags are ms-swift's: --eval_dataset_args, --eval_generation_config, --eval_limit,
--eval_batch_size, --temperature, --template, --system, ...; swift args lists them. A key of an
endpoint is read from OPENAI_API_KEY. Each report is a folder in --eval_output_dir."""
# Settings of held-out rows; benchmarks bring their own metrics.
_OF_ROWS = ("metrics",)


def main(argv: Sequence[str]) -> int:
    """Evaluate, write the report and print its figures."""
    parser = _parser()
    options, flags = parser.parse_known_args(argv[1:])
    values = recipe_from_flags("eval", flags)
    section = _section(values)
    template = read_section(TemplateSection, values.get("template", {}), "template")
    runtime = read_section(Runtime, values.get("runtime", {}), "runtime")
    _refuse(options, values)
    require_engine(section.infer_backend, runtime)
    report = _evaluated(options, section, template, runtime)
    return _published(options, report)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("swift eval", _TEXT)
    parser.add_argument("--model", help="folder, artifact or models:/name@alias; at an endpoint: "
                        "the model's name there")  # fmt: skip
    parser.add_argument("--adapters", nargs="+", default=[], help="adapter folder over the model")
    parser.add_argument("--eval_url", help="endpoint to ask instead of a model in this process")
    parser.add_argument("--eval_output_dir", type=Path, default=Path("eval_output"))
    parser.add_argument("--eval_num_proc", type=int, help="requests at a time; default: 16")
    parser.add_argument("--eval_timeout", type=float, help="seconds for one answer; default: 300")
    parser.add_argument("--eval_retries", type=int, help="further tries of a request; default: 4")
    add_store(parser)
    return parser


def _section(values: dict[str, Any]) -> EvaluateSection:
    given = dict(values.get("evaluate", {}))
    idle = [name for name in _OF_ROWS if name in given]
    if idle:
        raise UsageError(
            "A setting does nothing in swift eval.",
            where="swift eval",
            found=", ".join(f"--{name}" for name in idle),
            expected="settings of benchmarks",
            do="held-out rows of a recipe are evaluated by its evaluate section",
        )
    longest = given.pop("max_new_tokens", None)
    if longest is not None:
        config = {"max_tokens": longest} | (given.get("eval_generation_config") or {})
        given["eval_generation_config"] = config
    section = read_section(EvaluateSection, given, "evaluate")
    if not section.eval_dataset:
        raise UsageError(
            "No benchmark is named.",
            where="swift eval",
            expected="--eval_dataset NAME [NAME ...]",
            do="swift eval --help shows examples",
        )
    return section


def _refuse(options: argparse.Namespace, values: dict[str, Any]) -> None:
    """Refuse what would do nothing with this kind of model."""
    idle = [f"--{name}" for name in values.get("model", {})]
    if options.eval_url:
        idle += [f"--{name}" for name in values.get("template", {})]
        idle += ["--adapters"] if options.adapters else []
        of_engines = ("infer_backend", "eval_batch_size", *ToolSettings.model_fields)
        idle += [f"--{name}" for name in of_engines if name in values["evaluate"]]
    else:
        names = ("eval_num_proc", "eval_timeout", "eval_retries")
        idle += [f"--{name}" for name in names if getattr(options, name) is not None]
    if idle:
        raise UsageError(
            "A setting does nothing here.",
            where="swift eval",
            found=", ".join(idle),
            expected="settings of the endpoint" if options.eval_url else "settings of the model",
            do="leave it out",
        )
    if not options.eval_url and not options.model and not options.adapters:
        raise UsageError(
            "Nothing to evaluate is named.",
            where="swift eval",
            expected="--model FOLDER, or --eval_url ADDRESS",
            do="swift eval --help shows examples",
        )


def _evaluated(
    options: argparse.Namespace,
    section: EvaluateSection,
    template: TemplateSection,
    runtime: Runtime,
) -> "EvaluationReport":
    from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
    from swiftcore.evaluation.benchmarks.reporting import evaluate_benchmarks

    progress = Silent() if options.json else TerminalProgress("eval")
    if section.eval_backend != "Native":
        return _evaluated_by_tool(options, section, template, runtime, progress)
    files = benchmark_files(section, runtime.eval_dataset_dir)
    if options.eval_url:
        from swiftcore.evaluation.benchmarks.endpoint import EndpointModel
        from swiftcore.evaluation.benchmarks.responding import refuse_likelihoods

        benchmarks = plan_benchmarks(section, files)
        if any(found.by_likelihood for found in benchmarks):
            raise refuse_likelihoods()
        endpoint = EndpointModel(_endpoint(options), api_key=os.environ.get("OPENAI_API_KEY"))
        name = file_name(endpoint.model)
        report = evaluate_benchmarks(section, name, endpoint, benchmarks, progress=progress)
        return replace(report, settings=report.settings | {"endpoint": endpoint.as_dict()})
    from swiftcore.evaluation.benchmarks.responding import LocalModel
    from swiftcore.stages.model_folders import find_folders, opened_model

    folders = find_folders(options.model, options.adapters, Store(options.store or runtime.store))
    benchmarks = plan_benchmarks(section, files)
    name = file_name(folders.label)
    log = work_dir(options.eval_output_dir, name) / "engine.log"
    with opened_model(folders, template, section, runtime, log, progress) as engine:
        model = LocalModel(engine, section.eval_batch_size)
        report = evaluate_benchmarks(
            section, name, model, benchmarks, size_bytes=folders.size_bytes, progress=progress
        )
    return replace(report, settings=report.settings | {"model": _told(folders)})


def _evaluated_by_tool(
    options: argparse.Namespace,
    section: EvaluateSection,
    template: TemplateSection,
    runtime: Runtime,
    progress: Progress,
) -> "EvaluationReport":
    from swiftcore.stages.model_folders import find_folders

    refuse_template(template.model_dump(exclude_defaults=True))
    out = options.eval_output_dir
    if options.eval_url:
        key = os.environ.get("OPENAI_API_KEY")
        return ask_endpoint(section, _endpoint(options), key, out, runtime, progress)
    folders = find_folders(options.model, options.adapters, Store(options.store or runtime.store))
    return ask_folders(section, folders, out, runtime, progress)


def _endpoint(options: argparse.Namespace) -> Any:
    from swiftcore.evaluation.benchmarks.endpoint import EndpointSettings

    chosen = {
        "num_concurrent": options.eval_num_proc,
        "timeout_seconds": options.eval_timeout,
        "num_retries": options.eval_retries,
    }
    limits = {"num_concurrent": 1, "timeout_seconds": 0.001, "num_retries": 0}
    for name, value in chosen.items():
        if value is not None and value < limits[name]:
            raise UsageError(
                "A number is too small.",
                where=name,
                found=value,
                expected=f"at least {limits[name]}",
            )
    given = {name: value for name, value in chosen.items() if value is not None}
    return EndpointSettings(options.eval_url, options.model, **given)


def _told(folders: "ModelFolders") -> dict[str, Any]:
    adapter = folders.adapter_dir
    return {"label": folders.label, "adapter": None if adapter is None else adapter.name}


def _published(options: argparse.Namespace, report: "EvaluationReport") -> int:
    from swiftcore.evaluation.benchmarks.reporting import publish_report

    (name,) = report.candidates
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    folder = options.eval_output_dir / f"{name}-{stamp}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    publish_report(report, folder)
    result = report.candidates[name]
    if options.json:
        print_json({"path": str(folder), **result.as_dict()})
        return 0
    rows = [
        [metric, f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}", str(found.n)]
        for metric, found in result.metrics.items()
    ]
    print_table(["metric", name, "95 % interval" if report.settings["confidence"] == 0.95
                 else "interval", "n"], rows)  # fmt: skip
    print(
        f"answered {result.coverage:.1%}, failed {result.num_failed}, cut off {result.truncated}; "
        f"both count as wrong\n{folder / 'report.html'}"
    )
    return 0
