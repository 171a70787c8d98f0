"""What the machine is doing while a stage runs: MLflow's own monitors, sent through our spool.

MLflow's sampling thread writes to a server that has to answer. Here a sample is taken when a stage
tells its progress, and waits in the spool like every other figure while MLflow is away.
"""

import contextlib
import time
from typing import Any

_EVERY_SECONDS = 10.0


class SystemFigures:
    """Samples of CPU, memory, disk, network and, with nvidia-ml-py, GPUs."""

    def __init__(self, every_seconds: float = _EVERY_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._monitors: list[Any] | None = None
        self._taken = 0.0
        self.num_samples = 0

    def sample_if_due(self) -> dict[str, float]:
        """Return figures by the names MLflow's page knows them by; empty until the next is due."""
        now = time.monotonic()
        if self._monitors is None:
            self._monitors = _monitors()
        elif now - self._taken < self._every_seconds:
            return {}
        self._taken = now
        self.num_samples += 1
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {
                f"system/{name}": value for name, value in monitor.aggregate_metrics().items()
            }
            monitor.clear_metrics()
        return found


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    # It raises where there is no GPU, or no nvidia-ml-py to ask it.
    with contextlib.suppress(ImportError, RuntimeError):
        found.append(GPUMonitor())
    return found
