"""The record of one artifact: what it is, what it was made from, and the digest of every file.

A record carries a seal, the sha256 of its own content, so that an altered number in it is found
just as an altered byte in a file is. Records also come from remotes: nothing in one is believed
before its types, names and paths have been checked.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from swiftcore.artifacts.fingerprint import Identity, InputRef, sha256_text
from swiftcore.errors import ArtifactDamaged

RECORD_NAME = "record.json"
RECORD_SCHEMA = 1


def _inside(path: str) -> str:
    """Refuse a path that leads out of its artifact, or that names the record itself."""
    parts = PurePosixPath(path).parts
    if path != "/".join(parts) or not parts or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError("a file outside its artifact; expected a relative path without ..")
    if parts[0] in ("/", RECORD_NAME):
        raise ValueError("not a name that a file of an artifact may have")
    return path


_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact.

    Args:
        path: relative, with forward slashes.
        size: bytes.
        sha256: hex digest of the content.
        measured: holds times or rates, so it differs between runs and stays out of the digest.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    path: Annotated[str, AfterValidator(_inside)]
    size: Annotated[int, Field(ge=0)]
    sha256: _Digest
    measured: bool = False


@dataclass(frozen=True)
class Record:
    """All that is known about one finished artifact. Written last, beside its files."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    stage: _FolderName
    version: int
    name: _FolderName
    fingerprint: _Digest
    digest: _Digest
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

    @property
    def identity(self) -> Identity:
        """Return the identity that the record claims; its fingerprint must be the record's own."""
        return Identity(self.stage, self.version, self.name, self.config, self.inputs)

    def to_json(self) -> str:
        """Return the record with its seal, as indented JSON with a newline at its end."""
        fields = asdict(self)
        return json.dumps({**fields, "seal": _seal(fields)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object = RECORD_NAME) -> "Record":
        """Parse a record.

        Raises:
            ArtifactDamaged: the text is not a record of this schema, or not as it was written.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError(f"a {type(fields).__name__} instead of an object")
            if fields.get("schema") != RECORD_SCHEMA:
                raise ValueError(f"schema {fields.get('schema')!r} instead of {RECORD_SCHEMA}")
            if fields.pop("seal", None) != _seal(fields):
                raise ValueError("its content and its seal differ")
            record = _PARSER.validate_json(json.dumps(fields))
            if record.identity.fingerprint != record.fingerprint:
                raise ValueError("its fingerprint belongs to another configuration")
        except (ValueError, RecursionError) as err:
            raise ArtifactDamaged(
                "A record can't be read.",
                where=where,
                found=_reason(err),
                expected="the JSON that a finished stage writes",
                do="run the step again; it will be recomputed",
            ) from err
        return record


_PARSER = TypeAdapter(Record)


def _seal(fields: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(fields))  # as it will be read back: tuples are lists by then
    return sha256_text(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def _reason(err: Exception) -> str:
    if not isinstance(err, ValidationError):
        return str(err).splitlines()[0] if str(err) else type(err).__name__
    issue = err.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in issue["loc"])
    return f"{place} {issue.get('input')!r:.80}: {issue['msg'].removeprefix('Value error, ')}"


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
