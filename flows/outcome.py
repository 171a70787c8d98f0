"""What `swift run` prints at its end: steps, candidates, the gate, and where everything is."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from swiftcore.cli.tables import duration
from tasks.run_card import candidate_rows


def print_outcome(summary: Mapping[str, Any]) -> None:
    """Print a flow's summary for a person."""
    # Into a file or a pipe, rich would fold the tables to 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_steps(summary))
    if summary["candidates"]:
        console.print(_candidates(summary["candidates"]))
    if gate := summary["gate"]:
        verdict = "passed" if gate["passed"] else "refused"
        checks = ", ".join(f"{c['name']} {c['found']}" for c in gate["reasons"])
        console.print(f"gate {verdict}: {checks}")
    for label, text in addresses(summary):
        console.print(f"  {label:<20}{text}", soft_wrap=True, highlight=False, markup=False)


def addresses(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was made and where to see it, as (label, address or command)."""
    found: list[tuple[str, str]] = []
    if endpoint := summary["endpoint"]:
        found.append(("endpoint", f"{endpoint['url']}  (OpenAI-compatible)"))
        found.append(("stop it", "swift deploy --stop"))
    if summary["version"]:
        name = str(summary["version"]).partition("@")[0]
        found.append(("version", f"{summary['version']}, champion"))
        found.append(("lineage", f"swift lineage models:/{name}@champion"))
        found.append(("go back", f"swift rollback {name}"))
    if summary["report"]:
        found.append(("report", f"file://{summary['report']}"))
    found.append(("MLflow UI", _mlflow_command(summary["mlflow"])))
    found.append(("Prefect UI", _prefect_command()))
    return found


def _steps(summary: Mapping[str, Any]) -> Table:
    table = Table(title=str(summary["recipe"]), title_justify="left")
    for head in ("step", "", "time", "figures", "fingerprint"):
        table.add_column(head, no_wrap=head in ("step", "fingerprint"))
    for step in summary["steps"]:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in step["figures"].items())
        verb = "reused" if step["reused"] else "ran"
        seconds = "" if step["reused"] else duration(step["seconds"])
        table.add_row(step["step"], verb, seconds, figures, step["fingerprint"][:12])
    return table


def _candidates(candidates: Mapping[str, Any]) -> Table:
    head, rows = candidate_rows(candidates)
    table = Table(title="evaluation, with 95 % intervals", title_justify="left")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    return table


def _mlflow_command(mlflow: Mapping[str, Any]) -> str:
    if mlflow["url"]:
        return str(mlflow["url"])
    return f"mlflow ui --backend-store-uri {mlflow['uri']}"


def _prefect_command() -> str:
    if url := os.environ.get("PREFECT_API_URL"):
        return url.removesuffix("/api")
    return f"PREFECT_HOME={os.environ.get('PREFECT_HOME', '~/.prefect')} prefect server start"
