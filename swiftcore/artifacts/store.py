"""The folder where artifacts live: look up, verify, publish.

    <store>/<stage>/<name>-<fingerprint12>/   a finished artifact: its files and record.json
    <store>/in-progress/<fingerprint>/        out/ becomes the artifact, work/ holds checkpoints
    <store>/leases/<fingerprint>.json         who is making it
    <store>/damaged/                          artifacts whose files no longer match their record
    <store>/digests.sqlite                    digests of files that have not changed

Nothing unfinished is visible: `out/` is renamed into place in one step after its record is written.
Nothing unverified is reused: every lookup compares the files with the record.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from swiftcore.artifacts.digests import DigestCache, files_under, tree_digest
from swiftcore.artifacts.record import RECORD_NAME, Record, read_record, write_text_synced
from swiftcore.errors import ArtifactDamaged, UsageError

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
                problem = f"{err.message} {err.found or ''}".strip()
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
        named = {entry.path for entry in artifact.record.files}
        for entry in artifact.record.files:
            path = artifact.path / entry.path
            if not path.is_file():
                raise _damaged(artifact, entry.path, "no such file", f"{entry.size} bytes")
            size = path.stat().st_size
            if size != entry.size:
                raise _damaged(artifact, entry.path, f"{size} bytes", f"{entry.size} bytes")
            digest = cache.sha256(path)
            if digest != entry.sha256:
                raise _damaged(artifact, entry.path, f"sha256 {digest}", f"sha256 {entry.sha256}")
        for path in files_under(artifact.path):
            name = path.relative_to(artifact.path).as_posix()
            if name not in named and name != RECORD_NAME:
                raise _damaged(artifact, name, "a file the record does not name", "no such file")
        content = tree_digest((e.path, e.sha256) for e in artifact.record.files if not e.measured)
        if content != artifact.digest:
            raise _damaged(artifact, RECORD_NAME, f"digest {content}", f"digest {artifact.digest}")

    def lease_path(self, fingerprint: str) -> Path:
        """Return where the lease of a fingerprint lives."""
        return self.root / "leases" / f"{fingerprint}.json"

    def begin(self, fingerprint: str) -> WorkArea:
        """Open the private folders of a run: `out` empty, `work` as a crashed run left it."""
        base = self.root / "in-progress" / fingerprint
        area = WorkArea(base / "out", base / "work")
        if area.out.exists():
            shutil.rmtree(area.out)
        area.out.mkdir(parents=True)
        area.work.mkdir(exist_ok=True)
        return area

    def publish(self, area: WorkArea, record: Record) -> Artifact:
        """Write the record, then move the folder into place with one rename."""
        for file in files_under(area.out):
            _sync(file)
        write_text_synced(area.out / RECORD_NAME, record.to_json())
        _sync(area.out)
        target = self.root / record.stage / f"{record.name}-{record.fingerprint[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
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
        yield from sorted(found, key=lambda a: (a.record.finished, a.record.fingerprint))

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
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        target = self.root / "damaged" / f"{folder.parent.name}-{folder.name}-{stamp}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, target)


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
