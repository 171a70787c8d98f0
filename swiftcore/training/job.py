"""What a training process is told, and what it tells back."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from swiftcore.errors import UsageError
from swiftcore.models.quantizing import LoadQuantization
from swiftcore.recipe.processes import Processes
from swiftcore.recipe.sections import Dtype, TrainSection, TunerSection
from swiftcore.recipe.tasks import BATCH_LOSSES, TEXT, Task, compares_processes, loss_of

# Where a run begins; not what it is.
RESUME_SETTINGS = ("resume_from_checkpoint", "resume_only_model", "ignore_data_skip")


class TrainJob(BaseModel):
    """One training run: what to train on what, and where its files are.

    `work_dir` outlives a crash and holds checkpoints, log and metrics; `out_dir` receives the model
    or adapter when training is complete.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    train: TrainSection
    tuner: TunerSection
    task: Task = TEXT
    model_dir: Path
    encoded_dir: Path
    work_dir: Path
    out_dir: Path
    adapter_dir: Path | None = Field(
        default=None, description="adapter that training goes on with, instead of a fresh one"
    )
    torch_dtype: Dtype | None = None
    attn_impl: str | None = None
    quantization: LoadQuantization | None = None
    device: str = "cpu"
    num_threads: int = Field(default=1, ge=1)
    num_workers: int = Field(default=0, ge=0)
    pin_memory: bool | None = None
    persistent_workers: bool = False
    prefetch_factor: int | None = Field(default=None, ge=1)
    peak_flops: float | None = Field(
        default=None, gt=0, description="operations a second of the device; default: measured"
    )
    processes: Processes = Field(default_factory=Processes)
    check_memory: bool = Field(
        default=True, description="refuse to load a model that can't be trained in this memory"
    )
    async_save: bool = Field(
        default=False, description="write checkpoints in a thread, while training goes on"
    )
    keep_freed_memory: bool = Field(
        default=True, description="on a CPU, keep what a step frees for the next one"
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="rows a forward, when memory does not allow the recipe's number",
    )

    def readers(self) -> int:
        """Return how many processes read rows of their own; those that share tokens are one.

        Raises:
            UsageError: the processes can't be divided into groups that share tokens.
        """
        return self.processes.readers(self.train.sequence_parallel_size)

    def batch_plan(self) -> tuple[int, int]:
        """Return (rows a forward, accumulation steps) of each process.

        Over all processes they make the recipe's step, whatever the number of processes is.

        Raises:
            UsageError: the processes can't share a step's rows evenly.
        """
        counted_for = self.train.data_parallel_size or self.readers()
        step = self.train.rows_a_step(counted_for)
        if compares_processes(self.task, self.train):
            compared = self.train.per_device_train_batch_size * counted_for
            return self._share(compared, "compared"), step // compared
        share = self._share(step, "a step")
        largest = self.micro_batch_size or self.train.per_device_train_batch_size
        micro = next(rows for rows in range(min(largest, share), 0, -1) if share % rows == 0)
        return micro, share // micro

    def eval_rows(self) -> int:
        """Return the rows that each process evaluates at a time.

        Raises:
            UsageError: the processes can't share rows that are compared evenly.
        """
        rows = self.train.per_device_eval_batch_size
        if not compares_processes(self.task, self.train):
            return rows
        counted_for = self.train.data_parallel_size or self.readers()
        return self._share(rows * counted_for, "compared")

    def _share(self, rows: int, what: str) -> int:
        sharers = self.readers()
        if rows % sharers:
            raise UsageError(
                "the processes can't share the rows of a step",
                where="train.per_device_train_batch_size, train.data_parallel_size",
                found=f"{rows} rows {what}, {sharers} processes",
                expected="as many rows for each process",
                do="start another number of processes, or change the rows of a step",
            )
        return rows // sharers

    def pins_memory(self) -> bool:
        """Tell whether batches are loaded into pinned memory."""
        return self.device == "cuda" if self.pin_memory is None else self.pin_memory

    def learning_rate(self) -> float:
        """Return the peak learning rate, with the default of the tuner type."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        return 1e-5 if self.tuner.train_type == "full" else 1e-4

    def identity(self) -> str:
        """Return a digest of what shapes the result, to tell checkpoints of other jobs apart."""
        shape = self.model_dump(
            mode="json",
            include={"train", "tuner", "task", "torch_dtype", "attn_impl"},
            exclude={"train": set(RESUME_SETTINGS)},
        )
        if self.train.deepspeed is not None:
            # The engine's files hold one process's part each, and fit as many processes only.
            shape["num_processes"] = self.processes.world_size
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()

    def with_smaller_batches(self) -> "TrainJob | None":
        """Return the job with fewer rows a forward and the same result, if there is one."""
        if loss_of(self.task, self.train) in BATCH_LOSSES:
            return None
        micro, _ = self.batch_plan()
        rows = self.train.per_device_train_batch_size
        smaller = [size for size in range(1, micro // 2 + 1) if rows % size == 0]
        return self.model_copy(update={"micro_batch_size": smaller[-1]}) if smaller else None


class TrainResult(BaseModel):
    """What a finished training run came to.

    `metrics` has train_loss (mean over all steps), first_loss, last_loss, eval_loss (last, when
    there are validation rows), steps, tokens, label_tokens, tokens_per_second, seconds,
    trainable_parameters, total_parameters; of the steps this process made, mfu (share of what the
    device can compute), machine_flops (what that is) and peak_memory_gib. `history` is the file of
    metric lines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: dict[str, float]
    history: Path
    resumed_from: int | None = None
    notes: list[str] = Field(default_factory=list)
