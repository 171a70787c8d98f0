"""What a tool's log says about why its server is not there, as one error with the next step."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from swiftcore.errors import BackendFailed, SwiftError, UsageError

_TAIL_CHARACTERS = 1500
_NUM_ERRORS = 3
# The last words of a process that says nothing itself: the reason stands before them.
_EMPTY_WORDS = ("Engine core initialization failed", "WorkerProc initialization failed")
# Exceptions, argparse, and what pydantic quotes of an exception below its own; a warning may name
# in backticks what could happen.
_ERROR_LINE = re.compile(
    r"(?<![`\w.])(?:(?:\w+\.)*\w*(?:Error|Exception)\b: .+|error: .+|Value error, .+)"
)


class PortTaken(BackendFailed):
    """A server could not have the port that was free when it was chosen."""


@dataclass(frozen=True)
class _Cause:
    """A reason that logs show, and what to do about it."""

    pattern: str
    message: str
    do: str
    kind: type[SwiftError] = BackendFailed


_PORT = _Cause(
    r"address already in use|Errno 98",
    "can't have its port: another program took it",
    "run the same command again; it will have another port",
    PortTaken,
)
_MEMORY = _Cause(
    r"out of memory|OutOfMemoryError|cannot allocate memory|bad_alloc|no available memory for the "
    r"cache|is less than (?:desired|requested)|larger than the (?:maximum number|available)"
    r"|not enough memory",
    "has not enough memory for this model",
    "lower the longest sequence, the sequences at once or the share of memory "
    "(swift args vllm, sglang or lmdeploy), or serve a quantized model",
)
_KILLED = _Cause("", "was killed", f"see whether memory ran out (dmesg); {_MEMORY.do}")
_CAUSES = (
    _PORT,
    _MEMORY,
    _Cause(
        r"not supported for now|architectures? .{0,80}not supported|has no vllm implementation"
        r"|does not recognize this architecture|unsupported (?:model )?architecture"
        r"|not supported by (?:turbomind|pytorch)",
        "can't serve this kind of model",
        "use infer_backend pt, or another tool; the log names what it knows",
    ),
    _Cause(
        r"no nvidia driver|no cuda-capable|failed to infer device type|not compiled with cuda"
        r"|cuda driver|driver .{0,40}too old",
        "finds no GPU that it can use",
        "see whether nvidia-smi lists a GPU, and whether its driver is new enough",
    ),
    _Cause(
        r"modulenotfounderror|importerror|cannot open shared object",
        "misses a part of its environment",
        "swift env check NAME; swift env remove NAME and swift env install NAME build it again",
    ),
    _Cause(
        r"unrecognized arguments|invalid choice|: error: argument|value error,|must be one of",
        "does not take these settings, or not for this model",
        "mend the setting that the log names",
        UsageError,
    ),
)


def why_ended(label: str, exit_code: int, path: Path, log: str) -> SwiftError:
    """Return why a server ended by itself, from its exit code and what it printed."""
    cause = _KILLED if exit_code == -signal.SIGKILL else _cause(log)
    how = f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    kind = cause.kind if cause else BackendFailed
    return kind(
        f"{label} {cause.message if cause else 'ended by itself'}",
        where=path,
        found=f"{how}; {told(log)}",
        expected="a running server",
        do=cause.do if cause else "read the log",
    )


def never_ready(label: str, seconds: float, path: Path, log: str) -> SwiftError:
    """Return the error for a server that runs, but does not answer."""
    return BackendFailed(
        f"{label} did not become ready",
        where=path,
        found=f"no answer after {seconds:g} s; {told(log)}",
        expected="an answer of its health check",
        do="raise runtime.start_timeout_seconds, or read the log",
    )


def told(log: str) -> str:
    """Return the last errors that a log names, else the log's end."""
    return "\n".join(_named_errors(log)) or log.strip()[-_TAIL_CHARACTERS:] or "nothing was printed"


def _cause(log: str) -> _Cause | None:
    """Return what the last error means, else what those before it mean."""
    named = _named_errors(log) or [log[-_TAIL_CHARACTERS:]]
    for text in reversed(named):
        for cause in _CAUSES:
            if re.search(cause.pattern, text, re.IGNORECASE):
                return cause
    return None


def _named_errors(log: str) -> list[str]:
    """Return the last few different errors, in their order.

    Only the last: tools warn of modules that they could not import long before they fail.
    """
    lines = dict.fromkeys(reversed(_ERROR_LINE.findall(log)))
    said = [line for line in lines if not any(words in line for words in _EMPTY_WORDS)]
    return said[:_NUM_ERRORS][::-1]
