"""The dataset syntax of recipes and flags.

| entry | stands for |
|---|---|
| `path[:sub1/sub2][#count]` | a local file, folder or pattern |
| `[hf::|ms::]org/name[:subset][@revision][#count]` | a dataset on a hub |
| `scheme:/...[#sha256=hex][#count]` | https, s3, and what plug-ins add, such as mlflow |
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swiftcore.errors import UsageError

_HUBS: dict[str, Literal["hf", "ms"]] = {"hf": "hf", "ms": "ms"}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
# Two letters at least, so a drive letter is none; no subset is empty, so `:/` means nothing else.
_REFERENCE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of `data.dataset`, taken apart.

    Args:
        path: local path, hub id or address, without hub prefix, subsets and count.
        hub: `hf`, `ms`, or None when the entry names no (known) hub.
        subsets: names after `:`, split at `/`.
        sample: rows to take after `#`; None takes all.
        prefix: what stood before `::`, as written; reading refuses one that is no hub.
        text: the entry as written, for messages.
        revision: branch, tag or commit after `@`, of a dataset on a hub.
        sha256: digest that the file at an address must have, in lower case.
    """

    path: str
    hub: Literal["hf", "ms"] | None = None
    subsets: list[str] = field(default_factory=list)
    sample: int | None = None
    prefix: str | None = None
    text: str = ""
    revision: str | None = None
    sha256: str | None = None

    @property
    def is_local(self) -> bool:
        """True when the path exists on this machine; local paths win over hub ids."""
        return exists(self.path)

    @property
    def scheme(self) -> str | None:
        """The scheme of an address such as `https://...`, in lower case; None for other entries."""
        match = _REFERENCE.match(self.path)
        return match.group(1).lower() if match and not self.is_local else None

    @property
    def is_pattern(self) -> bool:
        """True when the path is a pattern with `*`, `?` or `[...]` and no file of that name."""
        return bool(_MAGIC.search(self.path)) and self.scheme is None and not self.is_local


def parse_dataset_spec(text: str) -> DatasetSpec:
    """Take one dataset entry apart; a file whose name holds `:` or `#` is found before any split.

    `#` splits from the right and `:` from the left, and before each split the text is tried as a
    path, so `with:colon.jsonl#3` means three rows of `with:colon.jsonl`.

    Raises:
        UsageError: empty path, subset or revision, or a count that is not a whole number above
            zero.
    """
    rest, prefix = text.strip(), None
    if _REFERENCE.match(rest) and not exists(rest):
        return _address(rest, text)
    if "::" in rest and not exists(rest):
        prefix, rest = (part.strip() for part in rest.split("::", 1))
    hub = _HUBS.get(prefix.lower()) if prefix is not None else None
    sample = None
    if "#" in rest and not exists(rest):
        rest, count = rest.rsplit("#", 1)
        rest, sample = rest.strip(), _row_count(count.strip(), text)
    revision = None
    if hub is not None and "@" in rest and not exists(rest):
        rest, revision = _revision(rest, text)
    subsets: list[str] = []
    if ":" in rest and not exists(rest):
        rest, names = rest.split(":", 1)
        rest, subsets = rest.strip(), _subset_names(names, text)
    if not rest:
        raise UsageError(
            "a dataset entry names no file",
            where=repr(text),
            expected="path[:subset][#count]",
            do="put the path of a data file before any : or #",
        )
    return DatasetSpec(rest, hub, subsets, sample, prefix, text, revision)


def exists(path: str) -> bool:
    """Tell whether a path names something here; text no path can be made of names nothing."""
    try:
        return bool(path) and Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _address(rest: str, text: str) -> DatasetSpec:
    address, *fragments = (part.strip() for part in rest.split("#"))
    sample = sha256 = None
    for fragment in fragments:
        name, equals, value = fragment.partition("=")
        if equals and name.strip().lower() == "sha256":
            sha256 = _digest(value.strip(), text)
        else:
            sample = _row_count(fragment, text)
    return DatasetSpec(address, sample=sample, text=text, sha256=sha256)


def _digest(value: str, text: str) -> str:
    if not _SHA256.fullmatch(value):
        raise UsageError(
            "the sha256 of a dataset entry is no sha256",
            where=repr(text),
            found=value,
            expected="#sha256= and 64 hexadecimal digits",
            do="take it from `sha256sum FILE`, or leave it out",
        )
    return value.lower()


def _revision(rest: str, text: str) -> tuple[str, str]:
    """Return the entry without its revision, and the revision; subsets may stand on either side."""
    before, revision = rest.split("@", 1)
    revision, colon, names = revision.partition(":")
    if not revision.strip():
        raise UsageError(
            "the revision of a dataset entry is empty",
            where=repr(text),
            expected="@ and a branch, tag or commit",
            do="name the revision, or remove the @",
        )
    return before.strip() + colon + names, revision.strip()


def _row_count(count: str, text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(count) or int(count) < 1:
        raise UsageError(
            "the row count of a dataset entry is not a whole number above zero",
            where=repr(text),
            found=f"#{count}",
            expected="#n with n >= 1, for example #500",
            do="correct the count, or remove # and what follows to take all rows; "
            "a file name with # in it works when the file exists",
        )
    return int(count)


def _subset_names(names: str, text: str) -> list[str]:
    subsets = [name.strip() for name in names.split("/")]
    if not all(subsets):
        raise UsageError(
            "a subset name of a dataset entry is empty",
            where=repr(text),
            found=f":{names}",
            expected=":name or :name1/name2",
            do="name the subset, or remove the colon",
        )
    return subsets
