"""Speed and memory of a training run: tokens a second, MFU, peak memory.

Nothing measured here enters an artifact's bytes: `metrics.write_history` leaves these names out.
"""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from swiftcore.training.flops import ModelWork, model_work
from swiftcore.training.job import TrainJob
from swiftcore.training.peak import measure_peak


@dataclass
class _Sums:
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0


class Meter:
    """Adds up batches and time, for a log line and for the run of this process.

    Args:
        work: what the model multiplies with.
        peak_flops: operations a second of the machine at most.
        device: torch device string, for the memory that counts.
        readers: processes, or groups of them, that each see such batches.
        sharers: processes that share the tokens of a batch.
    """

    def __init__(
        self,
        work: ModelWork,
        peak_flops: float,
        device: str,
        readers: int = 1,
        sharers: int = 1,
    ) -> None:
        self.peak_flops = peak_flops
        self._work = work
        self._device = device
        self._readers = readers
        self._sharers = sharers
        self._window = _Sums()
        self._run = _Sums()
        self._clock = time.perf_counter()

    @classmethod
    def of(cls, model: Any, job: TrainJob) -> "Meter":
        """Return the meter of a prepared model, after measuring what the machine can do."""
        halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        dtype = halves.get(job.torch_dtype or "", torch.float32)
        peak = job.peak_flops or measure_peak(job.device, dtype)
        sharers = job.train.sequence_parallel_size
        return cls(model_work(model), peak, job.device, job.readers(), sharers)

    def start(self) -> None:
        """Count time from now on."""
        self._clock = time.perf_counter()

    def add_batch(self, lengths: Sequence[int], labels: int) -> None:
        """Count a forward and backward pass over rows of these lengths."""
        tokens = sum(lengths)
        pairs = sum(length * length for length in lengths) / 2
        flops = self._work.training_flops(tokens, labels, pairs)
        for sums in (self._window, self._run):
            sums.tokens += tokens
            sums.flops += flops

    def end_step(self) -> None:
        """Add the time since the last step, or since `start`."""
        now = time.perf_counter()
        for sums in (self._window, self._run):
            sums.seconds += now - self._clock
        self._clock = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of a block out: validation and checkpoints train nothing."""
        before = time.perf_counter()
        yield
        self._clock += time.perf_counter() - before

    def take_window(self) -> dict[str, float]:
        """Return the figures of a log line and begin the next."""
        found = self._figures(self._window)
        self._window = _Sums()
        return found

    def of_run(self) -> dict[str, float]:
        """Return the figures of all steps this process made, and the peak they are measured by."""
        return {**self._figures(self._run), "machine_flops": self.peak_flops}

    def _figures(self, sums: _Sums) -> dict[str, float]:
        found = {"peak_memory_gib": round(peak_memory_bytes(self._device) / 2**30, 3)}
        if sums.seconds > 0:
            found["tokens_per_second"] = round(sums.tokens * self._readers / sums.seconds, 1)
            found["mfu"] = round(sums.flops / self._sharers / sums.seconds / self.peak_flops, 4)
        return found


def peak_memory_bytes(device: str) -> int:
    """Return the most memory this process held at once: of the GPU, else of the machine."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
