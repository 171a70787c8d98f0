"""What tasks hand each other: a few strings that name an artifact, never a path."""

from dataclasses import dataclass

from swiftcore.artifacts import Artifact, Store
from swiftcore.errors import ArtifactDamaged


@dataclass(frozen=True)
class Handle:
    """Names a finished artifact; JSON-serialisable, and the same on every machine.

    Args:
        step: `recipe/stage` it was made for in this flow.
        stage: the stage that made it.
        fingerprint: what was asked for.
        digest: what came out.
        label: the artifact's place in the store.
    """

    step: str
    stage: str
    fingerprint: str
    digest: str
    label: str

    @classmethod
    def of(cls, step: str, artifact: Artifact) -> "Handle":
        """Return the handle of an artifact."""
        record = artifact.record
        return cls(step, record.stage, record.fingerprint, record.digest, artifact.label)


def open_artifact(handle: Handle, store: Store) -> Artifact:
    """Find the artifact again and verify its files.

    Raises:
        ArtifactDamaged: it was removed or altered since the handle was made.
    """
    found = store.lookup(handle.stage, handle.fingerprint)
    if found.artifact is None or found.artifact.digest != handle.digest:
        raise ArtifactDamaged(
            "An artifact that this run relies on is no longer what it was.",
            where=store.root / handle.label,
            found=found.problem or "no such artifact, or another content",
            expected=f"digest {handle.digest[:12]}",
            do="run the recipe again: the step is recomputed",
        )
    return found.artifact
