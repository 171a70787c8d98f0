"""Where and how work runs. Nothing here may change a result or enter a fingerprint."""

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swiftcore.errors import EnvironmentMissing, UsageError
from swiftcore.recipe.processes import (
    DEFAULT_TIMEOUT_SECONDS,
    Backend,
    Processes,
    meeting_point,
    number_of,
)

# The driver's entry points: NVIDIA, NVIDIA under WSL, AMD.
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


class Runtime(BaseModel):
    """Placement of one run: device, threads, paths, ports, log level.

    The split between `Recipe` (what) and `Runtime` (where) is in the types: a fingerprint is made
    from recipe sections only, so moving the store or changing the device keeps every artifact.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    store: Path = Field(default=Path(".swift/store"), description="folder that holds all artifacts")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where models run; auto takes an accelerator when there is one"
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of torch; default: cores"
    )
    nproc_per_node: int | None = Field(
        default=None, ge=1, description="training processes here; default: NPROC_PER_NODE, else 1"
    )
    nnodes: int | None = Field(
        default=None, ge=1, description="machines that train together; default: NNODES, else 1"
    )
    node_rank: int | None = Field(
        default=None, ge=0, description="number of this machine; default: NODE_RANK, else 0"
    )
    master_addr: str | None = Field(
        default=None, description="address of machine 0; default: MASTER_ADDR, else this machine"
    )
    master_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port there; default: MASTER_PORT, else 29500, or a free one on one machine",
    )
    ddp_timeout: int | None = Field(
        default=None,
        ge=1,
        description="seconds a training process waits for the others; default: 18000000",
    )
    ddp_backend: Backend | None = Field(
        default=None, description="how processes talk; default: nccl on GPUs, else gloo"
    )
    ddp_find_unused_parameters: bool | None = Field(
        default=None, description="let DDP look for parameters that a step does not use"
    )
    dataloader_num_workers: int = Field(
        default=0, ge=0, description="processes that load training batches"
    )
    dataloader_pin_memory: bool | None = Field(
        default=None, description="load batches into pinned memory; default: with a GPU"
    )
    dataloader_persistent_workers: bool = Field(
        default=False, description="keep the loading processes from epoch to epoch"
    )
    dataloader_prefetch_factor: int | None = Field(
        default=None, ge=1, description="batches each loading process prepares ahead; default: 2"
    )
    dataset_num_proc: int | None = Field(
        default=None, ge=1, description="processes that prepare rows; default: cores"
    )
    ray_address: str | None = Field(
        default=None,
        description="Ray cluster that prepares rows; local starts one here; default: processes",
    )
    eval_dataset_dir: Path = Field(
        default=Path("data/eval"), description="folder that holds the files of benchmarks"
    )
    lease_wait_seconds: float = Field(
        default=3600.0, ge=0, description="longest wait for another run of the same step"
    )
    host: str = Field(default="127.0.0.1", description="address the endpoint binds")
    port: int = Field(
        default=8765, ge=0, le=65535, description="port of the endpoint; 0 takes a free one"
    )
    start_timeout_seconds: float = Field(
        default=120.0, gt=0, description="longest wait for a served model to answer"
    )
    async_save: bool = Field(
        default=False,
        description="copy a checkpoint to main memory and write it while training goes on",
    )
    keep_freed_memory: bool = Field(
        default=True,
        description="a training on a CPU keeps the memory that a step frees for the next one",
    )
    report_to: list[Literal["tensorboard"]] = Field(
        default_factory=list,
        description="tensorboard: also write event files; flows tell MLflow in any case",
    )
    logging_dir: Path | None = Field(
        default=None, description="folder of event files; default: tensorboard/ in the store"
    )
    peak_tflops: float | None = Field(
        default=None,
        gt=0,
        description="what the device computes at most, for MFU; default: measured at each start",
    )
    check_memory: bool = Field(
        default=True, description="refuse a training that this machine's memory can't hold"
    )
    backends_dir: Path | None = Field(
        default=None,
        description="folder of the backends' environments; default: SWIFTCORE_BACKENDS, else "
        "swiftcore/backends in the user's cache",
    )
    install_backends: bool = Field(
        default=False, description="install a backend that a step needs, when it is not there"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="log level"
    )

    @model_validator(mode="after")
    def _loaders_have_work(self) -> "Runtime":
        for name in ("dataloader_persistent_workers", "dataloader_prefetch_factor"):
            if getattr(self, name) and not self.dataloader_num_workers:
                raise ValueError(f"{name} does nothing without dataloader_num_workers")
        return self

    @model_validator(mode="after")
    def _logging_dir_is_used(self) -> "Runtime":
        if self.logging_dir is not None and "tensorboard" not in self.report_to:
            raise ValueError("logging_dir does nothing without report_to: [tensorboard]")
        return self

    def threads(self, num_processes: int = 1) -> int:
        """Return the number of CPU threads to use in each of some processes."""
        return self.num_threads or max(1, (os.cpu_count() or 1) // num_processes)

    def processes(self) -> Processes:
        """Return the training processes, from the fields and the variables torchrun reads.

        Raises:
            UsageError: a variable makes no sense, or a setting does nothing with one process.
        """
        nodes = number_of(self.nnodes, "NNODES", 1, 1)
        per_node = number_of(self.nproc_per_node, "NPROC_PER_NODE", 1, 1)
        if nodes * per_node == 1:
            self._require_no_talk()
            return Processes()
        node_rank = number_of(self.node_rank, "NODE_RANK", 0, 0)
        if node_rank >= nodes:
            raise UsageError(
                "there is no machine of this number",
                where="runtime.node_rank or NODE_RANK",
                found=f"{node_rank} of {nodes} machines",
                expected=f"0 to {nodes - 1}",
                do="count machines from 0, and set NNODES to how many there are",
            )
        addr, port = meeting_point(self.master_addr, self.master_port, nodes)
        return Processes(
            per_node=per_node,
            nodes=nodes,
            node_rank=node_rank,
            master_addr=addr,
            master_port=port,
            timeout_seconds=self.ddp_timeout or DEFAULT_TIMEOUT_SECONDS,
            backend=self.ddp_backend,
            find_unused_parameters=self.ddp_find_unused_parameters,
        )

    def _require_no_talk(self) -> None:
        names = ("master_addr", "master_port", "ddp_timeout", "ddp_backend")
        given = [n for n in (*names, "ddp_find_unused_parameters") if getattr(self, n) is not None]
        if given:
            raise UsageError(
                f"runtime.{given[0]} does nothing with one training process",
                where=f"runtime.{given[0]}",
                found=getattr(self, given[0]),
                expected="several processes, or nothing here",
                do="set NPROC_PER_NODE or runtime.nproc_per_node, or leave the setting out",
            )

    def data_processes(self) -> int:
        """Return the number of processes that prepare rows."""
        return self.dataset_num_proc or os.cpu_count() or 1

    def resolved_device(self) -> str:
        """Return the torch device string that `auto` stands for on this machine.

        Raises:
            EnvironmentMissing: a GPU was asked for where none is.
        """
        # Without importing torch, which takes seconds.
        none = sys.platform == "linux" and not any(Path(file).exists() for file in _DEVICE_FILES)
        if self.device == "cuda" and none:
            raise EnvironmentMissing(
                "a GPU was asked for, and there is none",
                where="runtime.device",
                found="cuda, and no driver on this machine",
                expected="a GPU with its driver",
                do="set runtime.device: auto or cpu",
            )
        if self.device != "auto":
            return self.device
        if none:
            return "cpu"
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
        return "cpu"
