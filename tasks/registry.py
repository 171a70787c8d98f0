"""Registered models: one version a fingerprint, aliases that move under a lease, a journal.

    <store>/registry/<name>.jsonl   every promotion and rollback: when, from, to, why

MLflow would register a path that does not exist and call it READY, lists versions without their
aliases, and moves an alias for whoever writes last. So: files are verified byte by byte before a
version is made, aliases are read only by `get_model_version_by_alias`, and an alias is moved only
under a lease, after reading it again.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts.lease import hold
from swiftcore.errors import TransientError, UsageError
from tasks.sink import MlflowSink, translated
from tasks.spool import EventRejected, MlflowAway

_LEASE_WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Version:
    """A registered version and what its tags say."""

    name: str
    version: str
    tags: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the registered artifact."""
        return self.tags.get("pipeline.fingerprint", "")

    @property
    def reference(self) -> str:
        """Return `name@version`, which is also the endpoint's model id."""
        return f"{self.name}@{self.version}"


class Registry:
    """The registered models of one tracking store.

    Args:
        store: holds the artifacts that versions point at, the leases and the journal.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sink = MlflowSink(store.root)

    @property
    def uri(self) -> str:
        """Return the tracking store's address."""
        return self._sink.uri

    def register(
        self,
        name: str,
        artifact: Artifact,
        *,
        experiment: str,
        tags: Mapping[str, str],
        run_id: str | None = None,
    ) -> Version:
        """Register an artifact, or find the version that an earlier call made of it.

        Args:
            name: of the registered model.
            artifact: a model or adapter; every byte is verified first.
            experiment: where the logged model is listed.
            tags: lineage; the fingerprint and digest are added.
            run_id: MLflow run that made it.

        Raises:
            ArtifactDamaged: a file is not what was published.
            TransientError: MLflow does not answer.
        """
        self._store.verify(artifact, thorough=True)
        tags = {
            **tags,
            "pipeline.fingerprint": artifact.fingerprint,
            "artifact.digest": artifact.digest,
            "artifact.label": artifact.label,
            "artifact.path": str(artifact.path.absolute()),
        }
        with self._held(name), self._answering():
            known = self.find(name, artifact.fingerprint)
            if known is None:
                known = self._create(name, artifact, experiment, tags, run_id)
            else:
                self._tag(known, tags)
            self._client.set_registered_model_alias(name, "challenger", known.version)
        return Version(name, known.version, {**known.tags, **tags})

    def find(self, name: str, fingerprint: str) -> Version | None:
        """Return the oldest version that holds an artifact, by fingerprint."""
        query = f"name = '{name}' and tags.`pipeline.fingerprint` = '{fingerprint}'"
        with self._answering():
            found = self._client.search_model_versions(query)
        if not found:
            return None
        oldest = min(found, key=lambda version: int(version.version))
        return Version(name, str(oldest.version), dict(oldest.tags))

    def by_alias(self, name: str, alias: str) -> Version | None:
        """Return the version that an alias names; None when there is none."""
        from mlflow.exceptions import MlflowException

        with self._answering():
            try:
                found = self._client.get_model_version_by_alias(name, alias)
            except MlflowException as err:
                if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return Version(name, str(found.version), dict(found.tags))

    def version(self, name: str, version: str) -> Version:
        """Return a version by its number.

        Raises:
            UsageError: there is no such version.
        """
        from mlflow.exceptions import MlflowException

        with self._answering():
            try:
                found = self._client.get_model_version(name, version)
            except MlflowException as err:
                if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise no_version(name, version) from err
                raise
        return Version(name, str(found.version), dict(found.tags))

    def promote(self, name: str, version: str, *, reason: str) -> Version:
        """Make a version the champion and the one before it `previous`.

        Promoting the champion again changes nothing.

        Raises:
            UsageError: there is no such version.
            TransientError: MLflow does not answer.
        """
        wanted = self.version(name, version)
        with self._held(name), self._answering():
            before = self.by_alias(name, "champion")
            if before is not None and before.version == wanted.version:
                return wanted
            self._switch(wanted, before, "promote", reason)
        return wanted

    def rollback(self, name: str, *, reason: str = "asked for") -> Version:
        """Make the previous version the champion again, and return it.

        Raises:
            UsageError: there is no previous version.
            TransientError: MLflow does not answer.
        """
        with self._held(name), self._answering():
            previous = self.previous(name)
            self._switch(previous, self.by_alias(name, "champion"), "rollback", reason)
        return previous

    def previous(self, name: str) -> Version:
        """Return the version that a rollback goes to.

        Raises:
            UsageError: there is none.
        """
        found = self.by_alias(name, "previous")
        if found is None:
            raise UsageError(
                "There is no version to go back to.",
                where=f"models:/{name}@previous",
                found="no such alias",
                expected="a version that was champion before",
                do=f"swift promote {name} VERSION picks one by its number",
            )
        return found

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set tags of a version.

        Under the model's lease: MLflow inserts a tag after looking for it, so two identical runs
        that set the same one at once would meet at its unique constraint.
        """
        with self._held(version.name), self._answering():
            self._tag(version, tags)

    def open(self, version: Version) -> Path:
        """Return the verified folder of a version: the store's artifact, else MLflow's copy.

        Raises:
            ArtifactDamaged: the files differ from their record.
            TransientError: MLflow does not answer.
        """
        for artifact in self._store.artifacts():
            if artifact.fingerprint == version.fingerprint:
                self._store.verify(artifact)
                return artifact.path
        return self._download(version)

    def journal(self, name: str) -> list[dict[str, Any]]:
        """Return the promotions and rollbacks of a model, oldest first."""
        path = self._journal_path(name)
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @property
    def _client(self) -> Any:
        return self._sink.client

    def _create(
        self,
        name: str,
        artifact: Artifact,
        experiment: str,
        tags: Mapping[str, str],
        run_id: str | None,
    ) -> Version:
        model = self._client.create_logged_model(
            self._sink.experiment(experiment),
            name=f"{name}-{artifact.fingerprint[:12]}",
            source_run_id=run_id,
            tags=dict(tags),
            model_type=artifact.record.stage,
        )
        self._copy_files(artifact, model)
        self._client.finalize_logged_model(model.model_id, "READY")
        self._ensure_model(name)
        with _global_uri(self.uri):
            made = self._client.create_model_version(
                name,
                source=f"models:/{model.model_id}",
                run_id=run_id,
                tags=dict(tags),
                model_id=model.model_id,
            )
        return Version(name, str(made.version), dict(tags))

    def _copy_files(self, artifact: Artifact, model: Any) -> None:
        """Give MLflow the files: by hard link on the same disk, by upload elsewhere."""
        location = model.artifact_location
        if not location.startswith(("/", "file:")):
            self._client.log_model_artifacts(model.model_id, str(artifact.path))
            return
        target = Path(location.removeprefix("file://"))
        for file in sorted(path for path in artifact.path.rglob("*") if path.is_file()):
            link = target / file.relative_to(artifact.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, link)
            except OSError:
                shutil.copy2(file, link)

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _switch(self, to: Version, before: Version | None, action: str, reason: str) -> None:
        name = to.name
        if before is not None:
            self._client.set_registered_model_alias(name, "previous", before.version)
            self._tag(to, {"previous_champion": before.version})
        self._client.set_registered_model_alias(name, "champion", to.version)
        challenger = self.by_alias(name, "challenger")
        if challenger is not None and challenger.version == to.version:
            self._client.delete_registered_model_alias(name, "challenger")
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "action": action,
            "from": before.version if before else None,
            "to": to.version,
            "fingerprint": to.fingerprint,
            "reason": reason,
        }
        path = self._journal_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _tag(self, version: Version, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(version.name, version.version, key, value)

    def _download(self, version: Version) -> Path:
        from mlflow.artifacts import download_artifacts

        target = self._store.root.parent / "mlflow-models" / f"{version.name}-{version.version}"
        if not target.is_dir():
            with self._answering():
                uri = self._client.get_model_version_download_uri(version.name, version.version)
                partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
                partial.mkdir(parents=True, exist_ok=True)
                download_artifacts(artifact_uri=uri, dst_path=str(partial), tracking_uri=self.uri)
                os.replace(_record_folder(partial), target)
                shutil.rmtree(partial, ignore_errors=True)
        artifact = self._store.find(str(target))
        self._store.verify(artifact)
        return target

    def _journal_path(self, name: str) -> Path:
        return self._store.root / "registry" / f"{name}.jsonl"

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[None]:
        path = self._store.lease_path(f"registry-{name}")
        with hold(path, wait_seconds=_LEASE_WAIT_SECONDS):
            yield

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            with translated():
                yield
        except MlflowAway as err:
            raise TransientError(
                "MLflow does not answer, so no model can be registered or promoted.",
                where=self.uri,
                found=str(err).splitlines()[0][:300],
                expected="a tracking server, or the SQLite file",
                do="start the server (or unset MLFLOW_TRACKING_URI) and run the same command "
                "again: finished steps are reused, and spooled metrics follow",
            ) from err
        except EventRejected as err:
            raise UsageError(
                "MLflow refuses the request.",
                where=self.uri,
                found=str(err)[:500],
                do="check the model's name and MLflow's permissions",
            ) from err


def no_version(name: str, version: str) -> UsageError:
    """Return the error for a version or alias that does not exist."""
    return UsageError(
        "No such model version is registered.",
        where=f"models:/{name}",
        found=version,
        expected="a version number, or one of @champion, @challenger, @previous",
        do="run a recipe with a deploy section first; the MLflow UI lists what is registered",
    )


def _record_folder(root: Path) -> Path:
    """Return the folder that holds the record; MLflow may put the files one level deeper."""
    return next(root.rglob("record.json")).parent


@contextlib.contextmanager
def _global_uri(uri: str) -> Iterator[None]:
    """Set MLflow's global address: its SQL registry looks a logged model up there (3.17)."""
    import mlflow

    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield
        return
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None forgets it again
