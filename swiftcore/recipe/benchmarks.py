"""Benchmarks that a recipe may name, and the settings each of them takes.

The names and keys are EvalScope's, as ms-swift passes them on: `eval_dataset`,
`eval_dataset_args: {gsm8k: {few_shot_num: 4}}`, `eval_generation_config: {max_tokens: 512}`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

BENCHMARKS = (
    "arc",
    "bbh",
    "bfcl_v4",
    "general_mcq",
    "general_qa",
    "gsm8k",
    "humaneval",
    "ifeval",
    "math_500",
    "mbpp",
    "mmlu",
    "perplexity",
)
BY_LIKELIHOOD = ("arc", "general_mcq", "mmlu")
WITHOUT_SHOTS = ("bfcl_v4", "general_qa", "humaneval", "ifeval", "math_500", "perplexity")


class BenchmarkArgs(BaseModel):
    """Settings of one benchmark, a value of `evaluate.eval_dataset_args`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    local_path: str | None = Field(
        default=None, description="file or folder; default: found in runtime.eval_dataset_dir"
    )
    subset_list: tuple[str, ...] = Field(default=(), description="only these parts")
    few_shot_num: int | None = Field(default=None, ge=0, le=32, description="worked examples shown")
    system_prompt: str | None = Field(default=None, description="system message of every question")
    method: Literal["generation", "loglikelihood"] = Field(
        default="generation", description="how an answer of multiple choice is found"
    )


class GenerationConfig(BaseModel):
    """How benchmarks are answered, `evaluate.eval_generation_config`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int | None = Field(default=None, ge=1, description="longest answer in tokens")
    temperature: float | None = Field(default=None, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus")
    top_k: int = Field(default=0, ge=0, description="likeliest tokens kept; 0: all")
    repetition_penalty: float = Field(default=1.0, gt=0, description="1 is off")
    seed: int | None = Field(default=None, description="seed of sampling")
    stop: tuple[str, ...] = Field(default=(), description="strings that end an answer")


def check_benchmarks(
    names: Sequence[str],
    args: Mapping[str, Mapping[str, Any]],
    generation: Mapping[str, Any] | None,
) -> None:
    """Check the three benchmark settings of an evaluate section against each other.

    Raises:
        ValueError: a name or key is unknown, a value is wrong, or a setting would do nothing.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ValueError(f"eval_dataset: no benchmark {name!r}{nearest(name, BENCHMARKS)}")
    if len(set(names)) < len(names):
        raise ValueError("eval_dataset names a benchmark twice")
    for name, settings in args.items():
        if name not in names:
            raise ValueError(f"eval_dataset_args.{name} does nothing: eval_dataset lacks {name}")
        _check_args(name, benchmark_args(name, settings))
    if generation is not None:
        if not names:
            raise ValueError("eval_generation_config does nothing without eval_dataset")
        generation_config(generation)


def check_tool(
    names: Sequence[str],
    args: Mapping[str, Mapping[str, Any]],
    generation: Mapping[str, Any] | None,
) -> None:
    """Check the benchmark settings of a tool with benchmarks of its own, which it knows itself.

    Raises:
        ValueError: a setting would do nothing, or a value of generation is wrong.
    """
    if not names:
        raise ValueError("eval_backend does nothing without eval_dataset: test rows are ours")
    for name in args:
        if name not in names:
            raise ValueError(f"eval_dataset_args.{name} does nothing: eval_dataset lacks {name}")
    generation_config(generation)


def benchmark_args(name: str, settings: Mapping[str, Any]) -> BenchmarkArgs:
    """Return the typed settings of one benchmark.

    Raises:
        ValueError: a key is unknown or a value is wrong.
    """
    return _read(BenchmarkArgs, settings, f"eval_dataset_args.{name}")


def generation_config(settings: Mapping[str, Any] | None) -> GenerationConfig:
    """Return the typed settings of generation.

    Raises:
        ValueError: a key is unknown or a value is wrong.
    """
    return _read(GenerationConfig, settings or {}, "eval_generation_config")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, or all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def _check_args(name: str, args: BenchmarkArgs) -> None:
    if args.method == "loglikelihood" and name not in BY_LIKELIHOOD:
        raise ValueError(
            f"eval_dataset_args.{name}.method: only {', '.join(BY_LIKELIHOOD)} have choices "
            "whose likelihoods can be compared"
        )
    if args.few_shot_num and name in WITHOUT_SHOTS:
        raise ValueError(f"eval_dataset_args.{name}.few_shot_num: {name} has no worked examples")


def _read(model: type[Any], settings: Mapping[str, Any], where: str) -> Any:
    try:
        return model(**settings)
    except ValidationError as err:
        issue = err.errors(include_url=False)[0]
        key = ".".join(str(part) for part in issue["loc"])
        if issue["type"] == "extra_forbidden":
            hint = nearest(key, model.model_fields)
            raise ValueError(f"{where}: there is no {key}{hint}") from None
        raise ValueError(f"{where}.{key}: {issue['msg']}") from None
