"""The training processes of this machine, from outside: they start together and end together."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swiftcore.errors import EnvironmentMissing, SwiftError, from_dict
from swiftcore.models.files import read_json
from swiftcore.recipe.processes import Processes
from swiftcore.training.job import TrainJob
from swiftcore.training.workspace import Workspace

# How long processes may take to say why they end, once one of them has failed.
_LAST_WORDS_SECONDS = 5.0


class Team:
    """Processes that train together; when one fails, the others are ended.

    Args:
        processes: the processes by their number on this machine.
    """

    def __init__(self, processes: list["subprocess.Popen[bytes]"]) -> None:
        self._processes = processes
        self._failed: tuple[int, int] | None = None
        self._end_others_at = float("inf")

    def running(self) -> bool:
        """Tell whether some are at work, and end those that wait for one that failed."""
        codes = [process.poll() for process in self._processes]
        if self._failed is None:
            bad = [(number, code) for number, code in enumerate(codes) if code]
            if bad:
                # A signal ended one; others may have failed in the same moment for want of it.
                self._failed = min(bad, key=lambda one: (one[1] > 0, one[0]))
                self._end_others_at = time.monotonic() + _LAST_WORDS_SECONDS
        if None not in codes:
            return False
        if time.monotonic() > self._end_others_at:
            self.kill()
        return True

    @property
    def outcome(self) -> tuple[int, int]:
        """The number of the process that failed first, or of the first one, and its exit code."""
        return self._failed or (0, self._processes[0].returncode)

    def terminate(self) -> None:
        """Ask all to write a checkpoint and end."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    def kill(self) -> None:
        """Kill all with their data loaders; once waited for, an id may be another's."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the end of all and tell whether it came."""
        deadline = time.monotonic() + timeout_seconds
        try:
            for process in self._processes:
                process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True


def start_team(job: TrainJob, files: Workspace, log: Any) -> Team:
    """Start the processes of this machine; the first one writes into `log`.

    Raises:
        EnvironmentMissing: fewer devices than processes, or the port to meet at is taken.
    """
    devices = _devices(job)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, device in enumerate(devices):
            if number == 0:
                started.append(_start(job, files, number, device, log))
                continue
            with files.log_of(number).open("ab") as own:
                started.append(_start(job, files, number, device, own))
    except BaseException:
        Team(started).kill()
        raise
    return Team(started)


def _start(
    job: TrainJob, files: Workspace, number: int, device: str | None, log: Any
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "swiftcore.training.worker", str(files.job), str(os.getpid())]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(job.num_threads)
    if device is not None:
        # With several devices in sight transformers would split batches over them by itself.
        environment["CUDA_VISIBLE_DEVICES"] = device
    return subprocess.Popen(
        [*command, str(number)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        # A group of its own: Ctrl-C reaches this process alone, which then asks politely.
        start_new_session=True,
    )


def _devices(job: TrainJob) -> list[str | None]:
    """Return the CUDA device of each process, None where there is nothing to choose."""
    count = job.processes.per_node
    if job.device != "cuda":
        return [None] * count
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        numbers = [file.name[6:] for file in Path("/dev").glob("nvidia[0-9]*")]
        # Where there are no such files (AMD, WSL), only the devices themselves can tell.
        visible = sorted(numbers, key=int) or [str(number) for number in range(count)]
    else:
        visible = [name for name in named.split(",") if name.strip()]
    if len(visible) < count:
        raise EnvironmentMissing(
            "there are fewer GPUs than training processes",
            where="CUDA_VISIBLE_DEVICES" if named is not None else "/dev/nvidia*",
            found=f"{len(visible)} GPUs, {count} processes",
            expected="a GPU for each process",
            do="lower NPROC_PER_NODE, or train on the CPU with runtime.device: cpu",
        )
    return [*visible[:count]]


def with_meeting_point(processes: Processes) -> Processes:
    """Return the processes with a port to meet at, which is free.

    Raises:
        EnvironmentMissing: the port that was asked for is taken.
    """
    if processes.world_size == 1 or processes.node_rank > 0:
        return processes
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("" if processes.nodes > 1 else "127.0.0.1", processes.master_port or 0))
        except OSError as err:
            raise EnvironmentMissing(
                "the port where training processes meet can't be had",
                where="MASTER_PORT or runtime.master_port",
                found=f"port {processes.master_port}: {err.strerror}",
                expected="a free port",
                do="choose another one; on one machine leave it out, and a free one is taken",
            ) from err
        port = probe.getsockname()[1]
    return processes.model_copy(update={"master_port": port})


def reported_failure(files: Workspace, num_processes: int) -> tuple[SwiftError | None, bool]:
    """Return what ended the run, as its processes reported it, and whether it is but an echo.

    When one fails, the others fail for want of it; what they report of that is an echo.
    """
    reports = [files.failure_of(number) for number in range(num_processes)]
    found = [read_json(file) for file in reports if file.is_file()]
    if not found:
        return None, False
    first = min(found, key=lambda report: (report["echo"], report["time"]))
    return from_dict(first), first["echo"]


def require_packages(job: TrainJob) -> None:
    """Make sure that what a job needs beside the usual is installed.

    Raises:
        EnvironmentMissing: it asks for DeepSpeed, which is not.
    """
    if job.train.deepspeed is not None and find_spec("deepspeed") is None:
        raise EnvironmentMissing(
            "DeepSpeed is not installed",
            where="train.deepspeed",
            found="no package deepspeed",
            expected="deepspeed 0.19 or newer",
            do="pip install deepspeed, or use train.fsdp: fsdp2, which needs no package",
        )


def crowding(job: TrainJob) -> list[str]:
    """Return a note when processes on CPU outnumber the cores."""
    cores, count = os.cpu_count() or 1, job.processes.per_node
    if job.device != "cpu" or count <= cores:
        return []
    return [f"{count} training processes share {cores} cores: fewer of them would be faster"]
