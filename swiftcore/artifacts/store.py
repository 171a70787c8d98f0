"""The folder where artifacts live: look up, verify, publish.

    <store>/<stage>/<name>-<fingerprint12>/   a finished artifact: its files and record.json
    <store>/in-progress/<fingerprint>/        out-*/ becomes the artifact, work/ holds checkpoints,
                                              identity.json says what is being made
    <store>/leases/<fingerprint>.json         who is making it
    <store>/damaged/                          artifacts whose files no longer match their record
    <store>/journal                           fingerprints in the order they were published
    <store>/digests.sqlite                    digests of files that have not changed

Nothing unfinished is visible: `out-*/` is renamed into place in one step after its record is
written. Nothing unverified is reused: every lookup compares the files with the record. What is
newer is read from the journal, because a clock may have been set between two runs.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from swiftcore.artifacts.digests import DigestCache, entries_under, tree_digest
from swiftcore.artifacts.fingerprint import Identity
from swiftcore.artifacts.record import RECORD_NAME, Record, read_record
from swiftcore.atomic import write_text_synced
from swiftcore.errors import ArtifactDamaged, UsageError

IDENTITY_NAME = "identity.json"
_SERVICE_FOLDERS = {"in-progress", "leases", "damaged", "serving"}


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its record."""

    path: Path
    record: Record

    @property
    def fingerprint(self) -> str:
        """Return the full fingerprint."""
        return self.record.fingerprint

    @property
    def digest(self) -> str:
        """Return the content digest, which is what later stages are identified by."""
        return self.record.digest

    @property
    def label(self) -> str:
        """Return `stage/name-fingerprint12`, the artifact's place in the store."""
        return f"{self.record.stage}/{self.record.name}-{self.fingerprint[:12]}"


@dataclass(frozen=True)
class Lookup:
    """What the store has for a fingerprint: an artifact that verifies, or the reason why not."""

    artifact: Artifact | None
    problem: str | None = None


@dataclass(frozen=True)
class WorkArea:
    """Private folders of one run: `out` is published, `work` survives a crash for resuming."""

    out: Path
    work: Path


class Store:
    """Artifacts under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.digests = DigestCache(self.root / "digests.sqlite")

    def lookup(self, stage: str, fingerprint: str) -> Lookup:
        """Find and verify the artifact of a fingerprint; never raises for a damaged one."""
        problem = None
        for folder in self._folders(stage, fingerprint):
            try:
                artifact = Artifact(folder, read_record(folder))
                if artifact.fingerprint == fingerprint:
                    self.verify(artifact)
                    return Lookup(artifact)
            except ArtifactDamaged as err:
                problem = f"{err.message} Found {err.found}, expected {err.expected}."
        return Lookup(None, problem)

    def verify(self, artifact: Artifact, *, thorough: bool = False) -> None:
        """Compare every file of an artifact with its record.

        Args:
            artifact: what to check.
            thorough: read every byte again instead of trusting unchanged inode times.

        Raises:
            ArtifactDamaged: a file is missing, short, altered or was added; names the file.
        """
        cache = DigestCache(None) if thorough else self.digests
        record = artifact.record
        content = tree_digest((e.path, e.sha256) for e in record.files if not e.measured)
        if content != artifact.digest:
            raise _damaged(artifact, RECORD_NAME, f"digest {content}", f"digest {artifact.digest}")
        sizes = {entry.path: entry.size for entry in record.files}
        for path in entries_under(artifact.path):
            name = path.relative_to(artifact.path).as_posix()
            if name not in sizes and name != RECORD_NAME:
                raise _damaged(artifact, name, "a file the record does not name", "no such file")
        for name, size in sizes.items():  # cheap questions first: reading gigabytes comes last
            path = artifact.path / name
            if not path.is_file():
                raise _damaged(artifact, name, "no such file", f"{size} bytes")
            if (found := path.stat().st_size) != size:
                raise _damaged(artifact, name, f"{found} bytes", f"{size} bytes")
        for entry in record.files:
            digest = _readable_sha256(artifact, entry.path, cache)
            if digest != entry.sha256:
                raise _damaged(artifact, entry.path, f"sha256 {digest}", f"sha256 {entry.sha256}")

    def lease_path(self, fingerprint: str) -> Path:
        """Return where the lease of a fingerprint lives."""
        return self.root / "leases" / f"{fingerprint}.json"

    def begin(self, fingerprint: str, identity: Identity | None = None) -> WorkArea:
        """Open the private folders of a run: `out` new and empty, `work` as a crashed run left it.

        `out` has a new name each time: an owner that was taken for dead and writes on, writes into
        a folder that nobody publishes.

        Args:
            fingerprint: of what is made.
            identity: written down beside the folders, so that `swift gc` keeps the run's inputs.
        """
        base = self.root / "in-progress" / fingerprint
        for old in base.glob("out-*"):
            shutil.rmtree(old)
        area = WorkArea(base / f"out-{uuid.uuid4().hex[:8]}", base / "work")
        area.out.mkdir(parents=True)
        area.work.mkdir(exist_ok=True)
        if identity is not None:
            text = json.dumps(asdict(identity), indent=2, ensure_ascii=False)
            write_text_synced(base / IDENTITY_NAME, text + "\n")
        return area

    def publish(
        self, area: WorkArea, record: Record, guard: AbstractContextManager[None] | None = None
    ) -> Artifact:
        """Write the record, then move the folder into place with one rename.

        Args:
            area: the run's folders; both are gone afterwards.
            record: what is in `area.out`.
            guard: entered around the rename; a lease's guard raises when the lease is lost.
        """
        for file in entries_under(area.out):
            _sync(file)
        write_text_synced(area.out / RECORD_NAME, record.to_json())
        _sync(area.out)
        target = self.root / record.stage / f"{record.name}-{record.fingerprint[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with guard or nullcontext():
            self._note(record.fingerprint)
            for folder in self._folders(record.stage, record.fingerprint):
                self._set_aside(folder)
            os.rename(area.out, target)
        _sync(target.parent)
        shutil.rmtree(area.out.parent, ignore_errors=True)
        return Artifact(target, record)

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every artifact with a readable record, oldest first; files are not verified."""
        found = []
        for path in self.root.glob(f"*/*/{RECORD_NAME}"):
            if path.parent.parent.name in _SERVICE_FOLDERS:
                continue
            try:
                found.append(Artifact(path.parent, read_record(path.parent)))
            except ArtifactDamaged:
                continue  # `verify` names it; a listing has nothing to say about it
        order = {fingerprint: place for place, fingerprint in enumerate(self._journal())}
        yield from sorted(
            found, key=lambda a: (order.get(a.fingerprint, -1), a.record.finished, a.fingerprint)
        )

    def find(self, reference: str) -> Artifact:
        """Return the artifact that a folder, a `stage/name-...` or a fingerprint prefix names.

        Raises:
            UsageError: nothing or more than one artifact matches.
        """
        folder = Path(reference)
        if (folder / RECORD_NAME).is_file():
            return Artifact(folder.absolute(), read_record(folder))
        wanted = reference.removeprefix("artifact:")
        matches = [
            artifact
            for artifact in self.artifacts()
            if (len(wanted) >= 6 and artifact.fingerprint.startswith(wanted))
            or artifact.label == wanted
        ]
        if len(matches) == 1:
            return matches[0]
        latest = [artifact.label for artifact in self.artifacts()][-5:]
        raise UsageError(
            "No artifact has that name." if not matches else "Several artifacts have that name.",
            where=self.root,
            found=reference if not matches else ", ".join(a.label for a in matches),
            expected="a folder, stage/name-fingerprint12, or 6 or more digits of a fingerprint"
            + (f"; the newest are {', '.join(latest)}" if latest else ""),
            do="swift status lists what is there",
        )

    def _folders(self, stage: str, fingerprint: str) -> list[Path]:
        return sorted((self.root / stage).glob(f"*-{fingerprint[:12]}"))

    def _set_aside(self, folder: Path) -> None:
        """Move an artifact that no longer verifies out of the way; it is kept until `swift gc`."""
        copy = f"{folder.parent.name}-{folder.name}-{uuid.uuid4().hex[:8]}"
        target = self.root / "damaged" / copy
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, target)

    def _journal(self) -> list[str]:
        path = self.root / "journal"
        return path.read_text(encoding="ascii").split() if path.is_file() else []

    def _note(self, fingerprint: str) -> None:
        """Append to the journal in one write, which other processes can't cut in two."""
        handle = os.open(self.root / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"{fingerprint}\n".encode("ascii"))
        finally:
            os.close(handle)


def _readable_sha256(artifact: Artifact, name: str, cache: DigestCache) -> str:
    try:
        return cache.sha256(artifact.path / name)
    except OSError as err:
        found = f"{type(err).__name__}: {err.strerror}"
        raise _damaged(artifact, name, found, "a readable file") from err


def _damaged(artifact: Artifact, file: str, found: str, expected: str) -> ArtifactDamaged:
    return ArtifactDamaged(
        f"{artifact.label}: {file} is not what was published.",
        where=artifact.path / file,
        found=found,
        expected=expected,
        do="run the recipe again: the step is recomputed, the altered copy is kept in damaged/",
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.EBADF):  # file systems that can't sync a folder
            raise
    finally:
        os.close(handle)
