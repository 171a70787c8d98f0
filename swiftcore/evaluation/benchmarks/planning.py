"""From a recipe's section to the questions of its benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from swiftcore.errors import DataError
from swiftcore.evaluation.benchmarks.catalogue import CATALOGUE
from swiftcore.evaluation.benchmarks.places import locate
from swiftcore.evaluation.benchmarks.question import Benchmark, Files, Question
from swiftcore.evaluation.samples import rows_digest
from swiftcore.generation import SamplingParams
from swiftcore.recipe.benchmarks import BenchmarkArgs, benchmark_args, generation_config
from swiftcore.recipe.sections import EvaluateSection


@dataclass(frozen=True)
class PlannedBenchmark:
    """A benchmark with its questions and how they are answered.

    `num_available` is how many questions it has before `eval_limit`, `settings` what else the
    report says about how it was run.
    """

    benchmark: Benchmark
    args: BenchmarkArgs
    num_shots: int
    params: SamplingParams
    questions: list[Question]
    num_available: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the benchmark."""
        return self.benchmark.name

    @property
    def by_likelihood(self) -> bool:
        """Tell whether likelihoods are compared, and nothing is written."""
        return self.args.method == "loglikelihood" or self.benchmark.scores_text

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of all that is asked."""
        return rows_digest([question.identity() for question in self.questions])

    def as_dict(self) -> dict[str, Any]:
        """Return what report.json says about the benchmark itself."""
        return {
            "num_questions": len(self.questions),
            "num_available": self.num_available,
            "digest": self.digest,
            "method": "loglikelihood" if self.by_likelihood else "generation",
            "few_shot_num": self.num_shots,
            "max_tokens": None if self.by_likelihood else self.params.max_new_tokens,
            "temperature": None if self.by_likelihood else self.params.temperature,
            **self.settings,
        }


def benchmark_files(section: EvaluateSection, root: Path) -> dict[str, dict[str, Path]]:
    """Return the files that each benchmark of a section reads: name -> role -> path.

    Raises:
        DataError: a file is not there.
    """
    found = {}
    for name in section.eval_dataset:
        args, benchmark = _args(section, name), CATALOGUE[name]
        found[name] = locate(benchmark, args, num_shots(benchmark, args), root)
    return found


def plan_benchmarks(section: EvaluateSection, files: Mapping[str, Files]) -> list[PlannedBenchmark]:
    """Read the questions of a section's benchmarks.

    Args:
        section: which benchmarks, and how.
        files: what `benchmark_files` found.

    Raises:
        DataError: a file can't be read, or the subsets that were named have no question.
    """
    return [_plan(section, name, files[name]) for name in section.eval_dataset]


def _plan(section: EvaluateSection, name: str, files: Files) -> PlannedBenchmark:
    args, benchmark = _args(section, name), CATALOGUE[name]
    shots = num_shots(benchmark, args)
    questions = benchmark.read(files, args, shots)
    if not questions:
        raise DataError(
            f"The benchmark {name} has no question to ask.",
            where=files["test"],
            found=f"no row of the subsets {', '.join(args.subset_list)}",
            do=f"name other subsets in evaluate.eval_dataset_args.{name}.subset_list",
        )
    chosen = limited(questions, section.eval_limit)
    params = _params(section, benchmark)
    return PlannedBenchmark(
        benchmark, args, shots, params, chosen, len(questions), benchmark.settings()
    )


def num_shots(benchmark: Benchmark, args: BenchmarkArgs) -> int:
    """Return how many worked examples are shown."""
    return benchmark.num_shots if args.few_shot_num is None else args.few_shot_num


def limited(questions: list[Question], limit: int | None) -> list[Question]:
    """Return the first questions of each subset, as many from each as there is room for."""
    if limit is None or limit >= len(questions):
        return questions
    subsets: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        subsets.setdefault(question.subset, []).append(place)
    turns = (place for turn in zip_longest(*subsets.values()) for place in turn)
    kept = [place for place in turns if place is not None][:limit]
    return [questions[place] for place in sorted(kept)]


def _args(section: EvaluateSection, name: str) -> BenchmarkArgs:
    return benchmark_args(name, section.eval_dataset_args.get(name, {}))


def _params(section: EvaluateSection, benchmark: Benchmark) -> SamplingParams:
    chosen = generation_config(section.eval_generation_config)
    heat = section.temperature if chosen.temperature is None else chosen.temperature
    return SamplingParams(
        max_new_tokens=chosen.max_tokens or benchmark.max_tokens,
        temperature=heat,
        top_p=chosen.top_p,
        top_k=chosen.top_k,
        repetition_penalty=chosen.repetition_penalty,
        seed=section.seed if chosen.seed is None else chosen.seed,
        stop=chosen.stop,
    )
