"""Where an artifact came from: the tree of its inputs, back to the user's own files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from swiftcore.artifacts.fingerprint import InputRef
from swiftcore.artifacts.store import Artifact, Store


@dataclass(frozen=True)
class LineageNode:
    """One artifact or file in the tree.

    Args:
        role: what it is to its consumer, such as `model` or `dataset[0]`.
        ref: digest, fingerprint and label as the consumer recorded them.
        artifact: the artifact itself, None for a file or when it is no longer in the store.
        inputs: what it was made from.
    """

    role: str
    ref: InputRef
    artifact: Artifact | None = None
    inputs: tuple["LineageNode", ...] = field(default_factory=tuple)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "LineageNode"]]:
        """Yield every node with its depth, parents first."""
        yield depth, self
        for node in self.inputs:
            yield from node.walk(depth + 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as JSON-ready values."""
        record = self.artifact.record if self.artifact else None
        return {
            "role": self.role,
            "label": self.ref.label,
            "digest": self.ref.digest,
            "fingerprint": self.ref.fingerprint,
            "present": self.artifact is not None or self.ref.fingerprint is None,
            "finished": record.finished if record else None,
            "git_commit": record.environment.get("git_commit") if record else None,
            "inputs": [node.as_dict() for node in self.inputs],
        }


def lineage(store: Store, artifact: Artifact) -> LineageNode:
    """Return the tree of everything an artifact was made from."""
    known = {found.fingerprint: found for found in store.artifacts()}
    known.setdefault(artifact.fingerprint, artifact)
    ref = InputRef(artifact.digest, artifact.fingerprint, artifact.label)
    return _node("", ref, known)


def _node(role: str, ref: InputRef, known: dict[str, Artifact]) -> LineageNode:
    artifact = known.get(ref.fingerprint or "")
    if artifact is None:
        return LineageNode(role, ref)
    inputs = tuple(_node(name, source, known) for name, source in artifact.record.inputs.items())
    return LineageNode(role, ref, artifact, inputs)
