"""Runs one untrusted program; a script of the standard library alone, started by `running`.

Two processes: the keeper reads the job, makes the surroundings, forks the worker, waits for it with
a time limit, and ends everything it started. The worker limits itself and runs the program. What
is done, as far as the kernel allows, is a list of measures:

    namespaces   user, network, mount, process, IPC: no network device, no other process to see,
                 all file systems read-only, a small one in memory for the working folder
    seccomp      no sockets, no new processes or programs, no tracing, no mounting
    limits       processor time, memory, file size, open files, processes
    hook         sockets and processes refused by the interpreter; only where seccomp is not to be
                 had, for a program can get around it
"""

import ctypes
import json
import os
import platform
import resource
import select
import signal
import struct
import sys

_CLONE_FLAGS = 0x10000000 | 0x40000000 | 0x00020000 | 0x20000000 | 0x08000000
_MS_PRIVATE, _MS_REC = 0x40000, 0x4000
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY, _SYS_MOUNT_SETATTR = -100, 0x8000, 1, 442
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 38, 22, 2
_EPERM, _ENOSYS, _ALLOW, _ERRNO, _CLONE_THREAD = 1, 38, 0x7FFF0000, 0x00050000, 0x10000
# machine: (audit architecture, clone, clone3, calls that are refused). The calls are socket,
# connect, bind, sendto, sendmsg, fork, vfork, execve, execveat, ptrace, unshare, setns, mount,
# process_vm_writev, io_uring_setup, bpf, keyctl.
_CALLS = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (41, 42, 49, 44, 46, 57, 58, 59, 322, 101, 272, 308, 165, 311, 425, 321, 250),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (198, 203, 200, 206, 211, 221, 281, 117, 97, 268, 40, 271, 425, 280, 219),
    ),
}
_MAX_WORDS = 300


def main() -> None:
    """Read a job from standard input and write what came of it to standard output."""
    job = json.load(sys.stdin)
    libc = ctypes.CDLL(None, use_errno=True)
    _die_with_parent(libc)
    measures = list(job["measures"])
    if "namespaces" in measures:
        _enter_namespaces(libc)
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reading)
        os.setpgid(0, 0)
        _work(job, libc, writing)
    os.close(writing)
    said = _hear(reading, job["seconds"])
    timed_out = said is None
    for kill in (os.killpg, os.kill):
        try:
            kill(worker, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status = os.waitpid(worker, 0)
    verdict = {"why": f"no end within {job['seconds']:g} seconds"} if timed_out else said
    if not verdict:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        verdict = {"why": f"killed by signal {number} (processor time, memory or a crash)"}
        if not number:
            verdict = {"why": "the program ends before its tests do"}
    print(json.dumps(verdict))


def _hear(reading: int, seconds: float) -> "dict | None":
    """Return what the worker says; {} when it ends without a word, None when it does not end."""
    said = b""
    deadline = _now() + seconds
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - _now()))
        if not ready:
            return None
        piece = os.read(reading, 4096)
        if not piece:
            break
        said = (said + piece)[:4096]
    try:
        return json.loads(said) if said else {}
    except ValueError:
        return {}


def _now() -> float:
    return os.times().elapsed


def _work(job: dict, libc: ctypes.CDLL, writing: int) -> None:
    """Limit this process, run the program, say how it went, and end."""
    try:
        _die_with_parent(libc)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        if "namespaces" in job["measures"]:
            _hide_files(libc, job["folder"], job["file_bytes"])
        os.chdir(job["folder"])
        if "limits" in job["measures"]:
            _limit(job)
        if "hook" in job["measures"]:
            sys.addaudithook(_refuse)
        if "seccomp" in job["measures"]:
            _filter_calls(libc)
    except OSError as err:
        _say(writing, {"broken": f"{type(err).__name__}: {err}"})
    _say(writing, _run(job["program"]))


def _run(program: str) -> dict:
    try:
        code = compile(program, "<program>", "exec")
        exec(code, {"__name__": "__main__"})  # this is what all the rest is for
    except SystemExit:
        return {"why": "the program ends before its tests do"}
    except BaseException as err:
        return {"why": f"{type(err).__name__}: {err}".rstrip(": ")[:_MAX_WORDS]}
    return {"passed": True}


def _say(writing: int, verdict: dict) -> None:
    os.write(writing, json.dumps(verdict).encode())
    os._exit(0)


def _die_with_parent(libc: ctypes.CDLL) -> None:
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _enter_namespaces(libc: ctypes.CDLL) -> None:
    uid, gid = os.getuid(), os.getgid()
    _checked(libc.unshare(_CLONE_FLAGS), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)


def _hide_files(libc: ctypes.CDLL, folder: str, size: int) -> None:
    """Make every file system read-only, and the working folder a small one in memory."""
    _checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    done = libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, len(attributes)
    )
    _checked(done, "mount_setattr")
    # Other processes' command lines and environments are in /proc.
    for place, room in (("/proc", 4096), (folder, size)):
        options = f"size={room},mode=700".encode()
        _checked(libc.mount(b"tmpfs", place.encode(), b"tmpfs", 0, options), "mount tmpfs")


def _limit(job: dict) -> None:
    cpu = max(1, int(job["cpu_seconds"]))
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, job["memory_bytes"], job["memory_bytes"]),
        (resource.RLIMIT_FSIZE, job["file_bytes"], job["file_bytes"]),
        (resource.RLIMIT_NOFILE, 32, 32),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def _refuse(event: str, arguments: object) -> None:
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.spawn",
                         "os.posix_spawn", "ctypes.")):  # fmt: skip
        raise PermissionError(f"{event} is not allowed here")


def _filter_calls(libc: ctypes.CDLL) -> None:
    """Let the kernel refuse the calls of `_CALLS`; threads may still be made."""
    architecture, clone, clone3, refused = _CALLS[platform.machine()]
    load, equal, at_least, has_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    lines = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (give, 0, 0, _ERRNO | _EPERM),
        (load, 0, 0, 0),
        # The calls of the 32-bit flavour of x86-64 start here.
        (at_least, 0, 1, 0x40000000),
        (give, 0, 0, _ERRNO | _EPERM),
        (equal, 0, 1, clone3),
        (give, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in refused:
        lines += [(equal, 0, 1, number), (give, 0, 0, _ERRNO | _EPERM)]
    lines += [
        (equal, 0, 4, clone),
        (load, 0, 0, 16),
        (has_bit, 0, 1, _CLONE_THREAD),
        (give, 0, 0, _ALLOW),
        (give, 0, 0, _ERRNO | _EPERM),
        (give, 0, 0, _ALLOW),
    ]
    program = b"".join(struct.pack("HBBI", *line) for line in lines)
    room = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HP", len(lines), ctypes.addressof(room)))
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head), "seccomp")


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


if __name__ == "__main__":
    main()
