"""What a flow run came to: one JSON-ready summary, and the same as a page for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from swiftcore.artifacts import Artifact
from tasks.handles import Handle
from tasks.journey import Trip
from tasks.tracking import flat_metrics

REPORT_NAME = "report.json"
_KEY_FIGURES = {
    "ingest": ("train", "val", "test", "quarantined"),
    "scratch": ("parameters",),
    "fold": ("adapters", "max_logit_difference"),
    "extend": ("added_tokens", "rope_factor"),
    "template": ("train_rows", "rows", "train_tokens", "tokens"),
    "train": ("loss", "train_loss", "eval_loss"),
    "merge": ("max_logit_difference", "max_difference"),
    "quantize": ("recovery",),
}


def summarize(trip: Trip) -> dict[str, Any]:
    """Return what happened, as JSON-ready values."""
    artifacts = {label: _artifact(trip, handle) for label, handle in trip.handles.items()}
    steps = [_step(trip, label, found) for label, found in artifacts.items() if found]
    report = artifacts.get(f"{trip.road.recipe.name}/evaluate")
    candidates = _candidates(report)
    served = str(trip.facts.get("candidate", ""))
    return {
        "recipe": trip.road.recipe.name,
        "recipe_path": str(trip.loaded.path),
        "overrides": list(trip.loaded.overrides),
        "store": str(trip.store.root),
        "steps": steps,
        "candidates": candidates,
        "figures": _served_figures(candidates, served),
        "report": str(report.path / "report.html") if report else None,
        "mlflow": _mlflow(trip),
        "version": trip.facts.get("version"),
        "gate": trip.facts.get("gate"),
        "endpoint": trip.facts.get("endpoint"),
    }


def run_card(summary: Mapping[str, Any]) -> str:
    """Return the run card as Markdown."""
    parts = [f"# {summary['recipe']}", _steps_table(summary["steps"])]
    if summary["candidates"]:
        parts += ["## Evaluation", _candidates_table(summary["candidates"])]
    if summary["gate"]:
        parts += ["## Gate", _gate_text(summary["gate"])]
    if error := summary.get("error"):
        parts += ["## Error", f"```\n{_error_text(error)}\n```"]
    places = {
        "endpoint": (summary["endpoint"] or {}).get("url"),
        "registered version": summary["version"],
        "MLflow run": summary["mlflow"]["run_id"],
        "evaluation report": summary["report"],
    }
    parts += ["## Where", "\n".join(f"- {k}: `{v}`" for k, v in places.items() if v)]
    return "\n\n".join(parts) + "\n"


def interval_text(found: Mapping[str, Any]) -> str:
    """Return a figure with its 95 % interval, as in `0.912 [0.86, 0.95]`."""
    low, high = found.get("low"), found.get("high")
    text = f"{found['value']:.3f}"
    return text if low is None or high is None else f"{text} [{low:.2f}, {high:.2f}]"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def candidate_rows(candidates: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table that sets the candidates side by side."""
    names = sorted({metric for found in candidates.values() for metric in found["metrics"]})
    rows = [
        [
            name,
            *(interval_text(found["metrics"][m]) if m in found["metrics"] else "" for m in names),
            f"{found['size_bytes'] / 1e6:.1f} MB",
            f"{found['tokens_per_second']:.0f}",
        ]
        for name, found in candidates.items()
    ]
    return ["candidate", *names, "size", "tokens/s"], rows


def _artifact(trip: Trip, handle: Handle) -> Artifact | None:
    return trip.store.lookup(handle.stage, handle.fingerprint).artifact


def _step(trip: Trip, label: str, artifact: Artifact) -> dict[str, Any]:
    note = trip.notes.get(label)
    stage = artifact.record.stage
    figures = flat_metrics(artifact.record.metrics)
    wanted = [name for name in _KEY_FIGURES.get(stage, ()) if name in figures]
    return {
        "step": label,
        "stage": stage,
        # Prefect returned the verified artifact without calling the task when there is no note.
        "reused": note.reused if note else True,
        "reason": note.reason if note else "unchanged",
        "seconds": round(note.seconds, 3) if note else 0.0,
        "figures": {name: figures[name] for name in wanted},
        "fingerprint": artifact.fingerprint,
        "digest": artifact.digest,
        "path": str(artifact.path),
    }


def _candidates(report: Artifact | None) -> dict[str, Any]:
    path = report.path / REPORT_NAME if report else None
    if path is None or not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8")).get("candidates", {})


def _served_figures(candidates: Mapping[str, Any], served: str) -> dict[str, float]:
    found = candidates.get(served, {})
    return {name: entry["value"] for name, entry in found.get("metrics", {}).items()}


def _mlflow(trip: Trip) -> dict[str, str | None]:
    tracker = trip.tracker
    uri, run_id, url = tracker.sink.uri, tracker.run_id, None
    if uri.startswith("http") and run_id:
        experiment = tracker.sink.experiment(trip.road.recipe.name)
        url = f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return {"uri": uri, "run_id": run_id, "url": url}


def _steps_table(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            step["step"],
            "reused" if step["reused"] else "ran",
            step["reason"],
            f"{step['seconds']:.1f}",
            ", ".join(f"{k} {v:.4g}" for k, v in step["figures"].items()),
            f"`{step['fingerprint'][:12]}`",
        ]
        for step in steps
    ]
    return markdown_table(["step", "", "why", "seconds", "figures", "fingerprint"], rows)


def _candidates_table(candidates: Mapping[str, Any]) -> str:
    head, rows = candidate_rows(candidates)
    return markdown_table(head, rows)


def _gate_text(gate: Mapping[str, Any]) -> str:
    verdict = "passed" if gate["passed"] else "refused"
    rows = [
        [c["name"], c["found"], c["expected"], "yes" if c["passed"] else "**no**"]
        for c in gate["reasons"]
    ]
    return f"**{verdict}** for `{gate['served']}`\n\n" + markdown_table(
        ["condition", "found", "expected", "holds"], rows
    )


def _error_text(error: Mapping[str, Any]) -> str:
    fields = [
        f"{name}: {error[name]}" for name in ("where", "found", "expected", "do") if error[name]
    ]
    return "\n".join([str(error["message"]), *fields])
