"""The dataset syntax of recipes and flags: `[hf::|ms::]path_or_id[:sub1/sub2][#count]`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swiftcore.errors import UsageError

_HUBS: dict[str, Literal["hf", "ms"]] = {"hf": "hf", "ms": "ms"}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of `data.dataset`, taken apart.

    Args:
        path: local path or hub id, without hub prefix, subsets and count.
        hub: `hf`, `ms`, or None when the entry names no (known) hub.
        subsets: names after `:`, split at `/`.
        sample: rows to take after `#`; None takes all.
        prefix: what stood before `::`, as written; reading refuses one that is no hub.
        text: the entry as written, for messages.
    """

    path: str
    hub: Literal["hf", "ms"] | None = None
    subsets: list[str] = field(default_factory=list)
    sample: int | None = None
    prefix: str | None = None
    text: str = ""

    @property
    def is_local(self) -> bool:
        """True when the path exists on this machine; local paths win over hub ids."""
        return exists(self.path)


def parse_dataset_spec(text: str) -> DatasetSpec:
    """Take one dataset entry apart; a file whose name holds `:` or `#` is found before any split.

    `#` splits from the right and `:` from the left, and before each split the text is tried as a
    path, so `with:colon.jsonl#3` means three rows of `with:colon.jsonl`.

    Raises:
        UsageError: empty path or subset, or a count that is not a whole number above zero.
    """
    rest, prefix = text.strip(), None
    if "::" in rest and not exists(rest):
        prefix, rest = (part.strip() for part in rest.split("::", 1))
    sample = None
    if "#" in rest and not exists(rest):
        rest, count = rest.rsplit("#", 1)
        rest, sample = rest.strip(), _row_count(count.strip(), text)
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
    hub = _HUBS.get(prefix.lower()) if prefix is not None else None
    return DatasetSpec(rest, hub, subsets, sample, prefix, text)


def exists(path: str) -> bool:
    """Tell whether a path names something here; text no path can be made of names nothing."""
    try:
        return bool(path) and Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


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
