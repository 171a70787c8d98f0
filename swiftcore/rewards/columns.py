"""What rewards are given, checked once: texts, and columns of their length."""

from collections.abc import Mapping, Sequence
from typing import Any

from swiftcore.errors import UsageError


def texts_of(completions: Sequence[str | None]) -> list[str]:
    """Return completions as texts; none at all is an empty one.

    Raises:
        UsageError: something else is among them.
    """
    for place, value in enumerate(completions):
        if value is not None and not isinstance(value, str):
            raise UsageError(
                "a completion is no text", where=f"completions[{place}]", found=repr(value)[:80]
            )
    return [value or "" for value in completions]


def column_of(
    columns: Mapping[str, Any], name: str, completions: Sequence[object], reward: str
) -> list[Any]:
    """Return a column that a reward needs.

    Raises:
        UsageError: it is not given, or is not as long as the completions.
    """
    values = columns.get(name)
    if values is None or isinstance(values, str) or len(values) != len(completions):
        raise UsageError(
            f"the reward {reward} needs the column {name}",
            where=f"reward {reward}",
            found="nothing" if values is None else f"{len(values)} values",
            expected=f"a list of {len(completions)}, one for each completion",
        )
    return list(values)


def solutions_of(
    columns: Mapping[str, Any], completions: Sequence[object], reward: str
) -> list[str | None]:
    """Return the solutions as texts; None where there is none."""
    values = column_of(columns, "solution", completions, reward)
    return [None if value is None else str(value) for value in values]
