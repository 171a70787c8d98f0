"""Turn a model reference into a folder: a path, `artifact:...`, or what a plugin knows.

`models:/name@alias` needs MLflow, which this library does not import: packages that can resolve a
scheme announce it in the entry-point group `swift.resolvers`, under the scheme's name.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from swiftcore.artifacts import Artifact, Store, read_record
from swiftcore.artifacts.record import RECORD_NAME
from swiftcore.errors import EnvironmentMissing
from swiftcore.stages.contract import Source

Resolver = Callable[[str], Path]


def resolve_reference(reference: str, store: Store) -> Artifact | Source:
    """Return the artifact, verified, or the folder that a reference names.

    Raises:
        UsageError: no artifact has that fingerprint.
        ArtifactDamaged: the artifact's files are not what was published.
        EnvironmentMissing: nothing here can resolve the scheme.
    """
    if reference.startswith("artifact:"):
        return _verified(store.find(reference), store)
    scheme, colon, _ = reference.partition(":/")
    if colon and scheme.isalpha() and len(scheme) > 1:
        return _folder(_resolver(scheme, reference)(reference), reference, store)
    return _folder(Path(reference), reference, store)


def _verified(artifact: Artifact, store: Store) -> Artifact:
    store.verify(artifact)
    return artifact


def _folder(path: Path, label: str, store: Store) -> Artifact | Source:
    if (path / RECORD_NAME).is_file():
        return _verified(Artifact(path.absolute(), read_record(path)), store)
    return Source(path, label if "/" not in label.strip("/") else path.name or label)


def _resolver(scheme: str, reference: str) -> Resolver:
    for point in entry_points(group="swift.resolvers", name=scheme):
        return point.load()
    known = sorted(point.name for point in entry_points(group="swift.resolvers"))
    raise EnvironmentMissing(
        f"Nothing here can resolve {scheme}:/ references.",
        where=reference,
        found=f"resolvers for: {', '.join(known) or 'none'}",
        expected="a folder, recipe:PATH, artifact:FINGERPRINT or models:/name@alias",
        do="install the project itself (make install), which brings the models:/ resolver",
    )
