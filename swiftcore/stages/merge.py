"""Merge: fold the adapter into its base, and prove by logits that nothing else changed."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import MergeSection, Recipe
from swiftcore.stages.contract import Stage, StageRun

_NUM_SAMPLES = 8
_SAMPLE_TOKENS = 256


def _config(recipe: Recipe) -> dict[str, Any]:
    return {"merge": section_config(recipe.merge or MergeSection())}


def _run(run: StageRun) -> Produced:
    from swiftcore.export import merge_adapter

    report = merge_adapter(
        run.inputs["model"],
        run.inputs["adapter"],
        run.area.out,
        run.recipe.merge or MergeSection(),
        sample_ids=[
            row["input_ids"][:_SAMPLE_TOKENS]
            for row in held_out_rows(run.inputs["encoded"], _NUM_SAMPLES)
        ],
        device=run.runtime.resolved_device(),
        progress=run.progress,
    )
    facts = {"chat_template": report.chat_template}
    return Produced(metrics=_numbers(asdict(report)), facts=facts)


def held_out_rows(encoded: Path, count: int) -> list[dict[str, Any]]:
    """Return the first encoded validation rows, or training rows where there are none.

    Each row has `input_ids` and `labels`.
    """
    from swiftcore.template import load_encoded

    split = "val" if (encoded / "val.parquet").is_file() else "train"
    rows = load_encoded(encoded, split)
    return [
        {"input_ids": list(row["input_ids"]), "labels": list(row["labels"])}
        for row in (rows[index] for index in range(min(count, len(rows))))
    ]


def _needs_bytes(inputs: Mapping[str, Path]) -> int:
    """Return the size of the base's weights, which the merged model has too."""
    from swiftcore.models import model_facts

    return model_facts(inputs["model"])["size_bytes"]


def _numbers(fields: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in fields.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


MERGE = Stage("merge", 2, _config, _run, needs_bytes=_needs_bytes)
