"""Every failure a user can meet, as one block: where, found, expected, what to do.

Leaves also inherit the closest builtin exception, so library users can catch what they know.
Instances survive pickling, because stages run in subprocesses and Prefect moves exceptions around.
"""

from typing import Any


class SwiftError(Exception):
    """Root of all errors this project raises on purpose.

    Args:
        message: one sentence that says what went wrong.
        where: file:line, field, stage or address the problem belongs to.
        found: what was there.
        expected: what should have been there.
        do: the next command or edit that mends it.
    """

    exit_code = 1
    title = "internal error"

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        do: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = None if where is None else str(where)
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.do = do

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), self.message, self.where, self.found, self.expected, self.do),
        )

    def __str__(self) -> str:
        parts = [self.message]
        for label, value in (
            ("where", self.where),
            ("found", self.found),
            ("expected", self.expected),
            ("do", self.do),
        ):
            if value:
                parts.append(f"  {label + ':':<10}" + value.replace("\n", "\n" + " " * 12))
        return "\n".join(parts)

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the block as JSON-ready fields, for `--json` and for files between processes."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "do": self.do,
            "exit_code": self.exit_code,
        }


def _rebuild(
    kind: type[SwiftError],
    message: str,
    where: str | None,
    found: str | None,
    expected: str | None,
    do: str | None,
) -> SwiftError:
    return kind(message, where=where, found=found, expected=expected, do=do)


class UsageError(SwiftError, ValueError):
    """A command or a call was written in a way that has no meaning."""

    exit_code = 2
    title = "wrong usage"


class RecipeError(UsageError):
    """A recipe has one or more problems; `message` lists all of them."""

    title = "wrong recipe"


class DataError(SwiftError, ValueError):
    """Data is missing, empty or bad beyond the stated limit."""

    exit_code = 3
    title = "bad data"


class RowTooLong(DataError):
    """One row has more tokens than `max_length` and the strategy is to delete it."""


class GateRefused(SwiftError):
    """A measured result does not allow the next step."""

    exit_code = 4
    title = "gate refused"


class EnvironmentMissing(SwiftError, RuntimeError):
    """What this machine needs is not there (package, model, port), or something is in the way."""

    exit_code = 5
    title = "environment"


class ModelMissing(EnvironmentMissing, FileNotFoundError):
    """The base model can't be found where the recipe says."""


class BackendMissing(EnvironmentMissing):
    """A tool that runs in an environment of its own is not installed, or can't be here."""


class BackendFailed(EnvironmentMissing):
    """A tool in its own environment crashed, was killed, took too long or answered nonsense."""

    title = "backend"


class AnswerFailed(SwiftError, RuntimeError):
    """One request got no answer from the server of a tool; the others may have got theirs."""

    exit_code = 6
    title = "no answer"


class StoreFull(EnvironmentMissing, OSError):
    """The disk has no room for what is about to be written."""


class TransientError(SwiftError, RuntimeError):
    """Something outside is away for the moment; the same call may work later."""

    exit_code = 6
    title = "try again"


class LeaseHeld(TransientError):
    """Another live process is making the same artifact and the wait ran out."""


class LeaseLost(TransientError):
    """This process was taken for dead and another one holds its lease now."""


class Cancelled(SwiftError):
    """The user, or the orchestrator, asked for the work to stop."""

    exit_code = 130
    title = "cancelled"


class TrainingFailed(SwiftError, RuntimeError):
    """The training process ended without a model: non-finite loss, no label, or a crash."""

    exit_code = 4
    title = "training failed"


class ArtifactDamaged(SwiftError, RuntimeError):
    """Files differ from the record that names them."""

    exit_code = 3
    title = "damaged artifact"


def from_dict(fields: dict[str, Any]) -> SwiftError:
    """Rebuild an error that another process wrote with `as_dict`."""
    kinds = {kind.__name__: kind for kind in _leaves(SwiftError)}
    kind = kinds.get(str(fields.get("error")), SwiftError)
    return _rebuild(
        kind,
        str(fields.get("message")),
        fields.get("where"),
        fields.get("found"),
        fields.get("expected"),
        fields.get("do"),
    )


def _leaves(kind: type[SwiftError]) -> set[type[SwiftError]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= _leaves(child)
    return found
