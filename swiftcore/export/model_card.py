"""The card of a published model: what it was made from and how it did, as its records say."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts.lineage import LineageNode, lineage
from swiftcore.models.files import read_json

_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class CardFacts:
    """What is known of a model.

    Args:
        name: of the model.
        base: label and digest of the model it was trained from; None where it began here.
        data: label and digest of each dataset.
        results: evaluated metrics by name.
        recovery: what quantization kept, where it was quantized.
        git_commit: of the code that made it.
        fingerprint: of the artifact; None for a folder that no stage wrote.
    """

    name: str
    base: tuple[str, str] | None = None
    data: tuple[tuple[str, str], ...] = ()
    results: dict[str, float] = field(default_factory=dict)
    recovery: float | None = None
    git_commit: str | None = None
    fingerprint: str | None = None


def facts_of(artifact: Artifact, store: Store, name: str) -> CardFacts:
    """Gather what the records of an artifact and its inputs say."""
    nodes = [node for _, node in lineage(store, artifact).walk()]
    record = artifact.record
    return CardFacts(
        name=name,
        base=_base(nodes),
        data=_data(nodes),
        results=_results(artifact, store),
        recovery=record.metrics.get("recovery"),
        git_commit=record.environment.get("git_commit"),
        fingerprint=artifact.fingerprint,
    )


def model_card(facts: CardFacts, licence: str | None) -> str:
    """Return the README.md of a model repository: YAML for the hub, then text for people."""
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if facts.base:
        head["base_model"] = facts.base[0]
    if licence:
        head["license"] = licence
    lines = ["---", yaml.safe_dump(head, sort_keys=True).strip(), "---", f"# {facts.name}", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _rows(facts, licence)]
    if facts.results:
        lines += ["", "## Evaluation", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in sorted(facts.results.items())]
    return "\n".join(lines) + "\n"


def _rows(facts: CardFacts, licence: str | None) -> list[tuple[str, str]]:
    rows = [("licence", licence or "not stated")]
    base = f"{facts.base[0]}, sha256 {facts.base[1]}" if facts.base else "trained from scratch"
    rows.append(("base", base if facts.fingerprint else "not recorded"))
    rows += [("data", f"{label}, sha256 {digest}") for label, digest in facts.data]
    if facts.recovery is not None:
        rows.append(("accuracy kept by quantization", f"{facts.recovery:.4f}"))
    if facts.git_commit:
        rows.append(("code", facts.git_commit))
    if facts.fingerprint:
        rows.append(("fingerprint", facts.fingerprint[:_SHOWN_DIGITS]))
    return rows


def _base(nodes: list[LineageNode]) -> tuple[str, str] | None:
    """Return the model that no stage made: the one the first training began with."""
    for node in nodes:
        if node.role in ("model", "base") and node.ref.fingerprint is None:
            return node.ref.label.removeprefix("model "), node.ref.digest
    return None


def _data(nodes: list[LineageNode]) -> tuple[tuple[str, str], ...]:
    found = {
        node.ref.digest: node.ref.label
        for node in nodes
        if node.artifact is not None and node.artifact.record.stage == "ingest"
    }
    return tuple((label, digest) for digest, label in found.items())


def _results(artifact: Artifact, store: Store) -> dict[str, float]:
    for found in store.artifacts():
        if found.record.stage != "evaluate":
            continue
        for role, ref in found.record.inputs.items():
            if ref.fingerprint == artifact.fingerprint and role not in ("base", "dataset"):
                return read_json(found.path / "metrics.json").get(role) or {}
    return {}
