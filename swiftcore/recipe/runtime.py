"""Where and how work runs. Nothing here may change a result or enter a fingerprint."""

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    num_workers: int = Field(default=0, ge=0, description="processes that load training batches")
    dataset_num_proc: int | None = Field(
        default=None, ge=1, description="processes that prepare rows; default: cores"
    )
    ray_address: str | None = Field(
        default=None,
        description="Ray cluster that prepares rows; local starts one here; default: processes",
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="log level"
    )

    @model_validator(mode="after")
    def _logging_dir_is_used(self) -> "Runtime":
        if self.logging_dir is not None and "tensorboard" not in self.report_to:
            raise ValueError("logging_dir does nothing without report_to: [tensorboard]")
        return self

    def threads(self) -> int:
        """Return the number of CPU threads to use."""
        return self.num_threads or os.cpu_count() or 1

    def data_processes(self) -> int:
        """Return the number of processes that prepare rows."""
        return self.dataset_num_proc or os.cpu_count() or 1

    def resolved_device(self) -> str:
        """Return the torch device string that `auto` stands for on this machine."""
        if self.device != "auto":
            return self.device
        if sys.platform == "linux" and not any(Path(file).exists() for file in _DEVICE_FILES):
            return "cpu"  # without importing torch, which takes seconds
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
        return "cpu"
