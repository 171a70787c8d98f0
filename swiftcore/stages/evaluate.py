"""Evaluate: every candidate answers the held-out rows; scores, intervals, size and speed."""

from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.artifacts.digests import files_under
from swiftcore.recipe import EvaluateSection, Recipe
from swiftcore.stages.answering_engines import Answering, PromptedEngine, opened_engine
from swiftcore.stages.contract import Source, Stage, StageRun
from swiftcore.stages.evaluate_tools import tool_benchmarks, tool_inputs

if TYPE_CHECKING:
    from swiftcore.evaluation import Candidate
    from swiftcore.evaluation.benchmarks.planning import PlannedBenchmark
    from swiftcore.template import Template

_CANDIDATES = ("base", "trained", "adapter", "merged", "quantized")


def _config(recipe: Recipe) -> dict[str, Any]:
    config = section_config(recipe.evaluate or EvaluateSection())
    # Where a benchmark's files are is no part of what is asked: their content is an input.
    for name, args in config.get("eval_dataset_args", {}).items():
        config["eval_dataset_args"][name] = {k: v for k, v in args.items() if k != "local_path"}
    return {"evaluate": config}


def benchmark_inputs(section: EvaluateSection, root: Path) -> dict[str, Source]:
    """Return the files of a section's benchmarks as inputs, by role `benchmark/role`.

    Raises:
        DataError: a file is not there.
    """
    if not section.eval_dataset:
        return {}
    if section.eval_backend != "Native":
        return tool_inputs(section)
    from swiftcore.evaluation.benchmarks.planning import benchmark_files

    return {
        f"{name}/{role}": Source(path, path.name)
        for name, files in benchmark_files(section, root).items()
        for role, path in files.items()
    }


def _benchmarks(run: StageRun, section: EvaluateSection) -> "list[PlannedBenchmark]":
    if not section.eval_dataset or section.eval_backend != "Native":
        return []
    from swiftcore.evaluation.benchmarks.planning import plan_benchmarks

    files: dict[str, dict[str, Path]] = {name: {} for name in section.eval_dataset}
    for key, path in run.inputs.items():
        name, slash, role = key.partition("/")
        if slash and name in files:
            files[name][role] = path
    return plan_benchmarks(section, files)


def _run(run: StageRun) -> Produced:
    from swiftcore.data import load_rows
    from swiftcore.evaluation import evaluate_candidates

    dataset = run.inputs["dataset"]
    # With cached datasets the training rows are others than those ingested for this recipe.
    trained_on = [path for role, path in run.inputs.items() if role.startswith("trained on[")]
    trained_on = trained_on or [dataset]

    section = run.recipe.evaluate or EvaluateSection()
    with closing(_Engines(run, section)) as engines:
        report = evaluate_candidates(
            section,
            _candidates(run),
            load_rows(dataset, "test"),
            run.area.out,
            load_engine=engines.load,
            train_rows=[row for folder in trained_on for row in load_rows(folder, "train")],
            benchmarks=_benchmarks(run, section),
            tool=None
            if section.eval_backend == "Native"
            else tool_benchmarks(run, section, before_serving=engines.close),
            progress=run.progress,
        )
    metrics = {
        f"{candidate}/{name}": value
        for candidate, values in report.flat_metrics().items()
        for name, value in values.items()
    }
    return Produced(metrics=metrics)


def _candidates(run: StageRun) -> "list[Candidate]":
    from swiftcore.evaluation import Candidate

    found = []
    for name in (name for name in _CANDIDATES if name in run.inputs):
        folder = run.inputs[name]
        if name == "adapter":
            base = run.inputs["base"]
            size = weights_bytes(base) + weights_bytes(folder)
            found.append(Candidate(name, base, folder, size))
        else:
            found.append(Candidate(name, folder, None, weights_bytes(folder)))
    return found


class _Engines:
    """Makes the candidates' engines, one at a time; all share one template."""

    def __init__(self, run: StageRun, section: EvaluateSection) -> None:
        self._run, self._section = run, section
        self._opened = ExitStack()

    @cached_property
    def _template(self) -> "Template":
        from swiftcore.models import load_tokenizer
        from swiftcore.template import load_template

        inputs = self._run.inputs
        return load_template(inputs["encoded"], load_tokenizer(inputs["base"]))

    def load(self, candidate: "Candidate") -> PromptedEngine:
        """Return the engine of one candidate, and end the tool that answered for the last."""
        from swiftcore.models.files import same_tokenizer

        self.close()
        run = self._run
        shared = same_tokenizer(candidate.model_dir, run.inputs["base"])
        tokenizer = self._template.tokenizer if shared else None
        asked = Answering(candidate.model_dir, candidate.adapter_dir, self._template, tokenizer)
        log = run.area.work / "tools" / f"{candidate.name}.log"
        return self._opened.enter_context(
            opened_engine(asked, self._section, run.runtime, log, run.progress)
        )

    def close(self) -> None:
        """End what the last candidate needed."""
        self._opened.close()


def weights_bytes(folder: Path) -> int:
    """Return the size of a model folder's weight files, in bytes."""
    return sum(f.stat().st_size for f in files_under(folder) if f.suffix == ".safetensors")


EVALUATE = Stage(
    "evaluate",
    2,
    _config,
    _run,
    # The files of other tools say when they were written.
    measured=("report*", "metrics.json", "samples/*", "plots/*", "raw/*"),
)
