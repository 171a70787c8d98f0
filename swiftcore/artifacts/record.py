"""The record of one artifact: what it is, what it was made from, and the digest of every file."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from swiftcore.artifacts.fingerprint import InputRef
from swiftcore.errors import ArtifactDamaged

RECORD_NAME = "record.json"
RECORD_SCHEMA = 1


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact.

    Args:
        path: relative, with forward slashes.
        size: bytes.
        sha256: hex digest of the content.
        measured: holds times or rates, so it differs between runs and stays out of the digest.
    """

    path: str
    size: int
    sha256: str
    measured: bool = False


@dataclass(frozen=True)
class Record:
    """All that is known about one finished artifact. Written last, beside its files."""

    stage: str
    version: int
    name: str
    fingerprint: str
    digest: str
    config: dict[str, Any]
    inputs: dict[str, InputRef]
    files: tuple[FileEntry, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    seconds: float = 0.0
    resumed_from: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = RECORD_SCHEMA

    @property
    def size_bytes(self) -> int:
        """Return the size of all files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> str:
        """Return the record as indented JSON with a newline at its end."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object = RECORD_NAME) -> "Record":
        """Parse a record.

        Raises:
            ArtifactDamaged: the text is not a record of this schema.
        """
        try:
            fields = json.loads(text)
            if fields.get("schema") != RECORD_SCHEMA:
                raise ArtifactDamaged(
                    "A record was written by another version of this project.",
                    where=where,
                    found=f"schema {fields.get('schema')!r}",
                    expected=f"schema {RECORD_SCHEMA}",
                    do="run the step again; it will be recomputed",
                )
            fields["inputs"] = {role: InputRef(**ref) for role, ref in fields["inputs"].items()}
            fields["files"] = tuple(FileEntry(**entry) for entry in fields["files"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise ArtifactDamaged(
                "A record can't be read.",
                where=where,
                found=f"{type(err).__name__}: {err}",
                expected="the JSON that a finished stage writes",
                do="run the step again; it will be recomputed",
            ) from err

    def with_name(self, name: str) -> "Record":
        """Return the same record under another label."""
        return replace(self, name=name)


def read_record(folder: Path) -> Record:
    """Read the record of an artifact folder.

    Raises:
        ArtifactDamaged: there is none, or it can't be read.
    """
    path = folder / RECORD_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ArtifactDamaged(
            "An artifact folder has no readable record.",
            where=path,
            found=f"{type(err).__name__}",
            expected=f"a {RECORD_NAME}, which a finished stage writes last",
            do="run the step again; it will be recomputed",
        ) from err
    return Record.from_json(text, path)


def write_text_synced(path: Path, text: str) -> None:
    """Write a file so that it is either absent, old or complete, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
