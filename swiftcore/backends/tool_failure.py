"""What a tool's log says about why its server is not there, as one error with the next step."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from swiftcore.errors import BackendFailed, SwiftError, UsageError

_TAIL_CHARACTERS = 1500
# The last words of a process that says nothing itself: the reason stands before them.
_EMPTY_WORDS = ("Engine core initialization failed", "WorkerProc initialization failed")
_ERROR_LINE = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)\b: .+|error: .+")


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
    "run the same command again; another port is taken",
)
_MEMORY = _Cause(
    r"out of memory|OutOfMemoryError|cannot allocate memory|bad_alloc|no available memory for the "
    r"cache|is less than (?:desired|requested)|larger than the (?:maximum number|available)"
    r"|not enough memory",
    "has not enough memory for this model",
    "lower the longest sequence, the sequences at once or the share of memory "
    "(swift args vllm, sglang or lmdeploy), or serve a quantized model",
)
_CAUSES = (
    _PORT,
    _Cause(
        r"unrecognized arguments|invalid choice|: error: argument|validation error for",
        "does not take these settings",
        "mend the setting that the log names",
        UsageError,
    ),
    _MEMORY,
    _Cause(
        r"not supported for now|architectures? .{0,80}not supported|has no vllm implementation"
        r"|does not recognize this architecture|unsupported (?:model )?architecture"
        r"|not supported by (?:turbomind|pytorch)|unknown quantization method"
        r"|quantization method .{0,40}not supported",
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
)


def took_port(log: str) -> bool:
    """Tell whether a server ended because another program had its port."""
    return re.search(_PORT.pattern, log, re.IGNORECASE) is not None


def why_ended(label: str, exit_code: int, path: Path, log: str) -> SwiftError:
    """Return why a server ended by itself, from its exit code and what it printed."""
    cause = next((c for c in _CAUSES if re.search(c.pattern, log, re.IGNORECASE)), None)
    if cause is None and exit_code == -signal.SIGKILL:
        cause = _Cause("", "was killed", f"see whether memory ran out (dmesg); {_MEMORY.do}")
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
    """Return the last error that a log names, and the log's end."""
    named = [line for line in _ERROR_LINE.findall(log) if not any(w in line for w in _EMPTY_WORDS)]
    end = log.strip()[-_TAIL_CHARACTERS:] or "nothing was printed"
    return f"{named[-1]}\n{end}" if named else end
