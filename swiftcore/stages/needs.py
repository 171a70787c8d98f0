"""What a planned train step will need: memory by what holds it, time by what runs here reached."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Artifact, Record
from swiftcore.recipe import Runtime
from swiftcore.stages.contract import input_path
from swiftcore.stages.graph import Link, Step
from swiftcore.stages.train import train_job

if TYPE_CHECKING:
    from swiftcore.training.estimate import MemoryEstimate, RowSizes

_GIB = 2**30


@dataclass(frozen=True)
class TrainNeeds:
    """What a training is expected to take.

    Args:
        memory_bytes: weights, gradients, optimizer, activations, logits, process and their total.
        trained_parameters: how many numbers change.
        longest_row_tokens: that the activations are for; None when it is not known yet.
        seconds: at the speed of the last training in this store; None when there is none, or the
            rows are not encoded yet.
    """

    memory_bytes: dict[str, int]
    trained_parameters: int
    longest_row_tokens: int | None
    seconds: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the needs as JSON-ready values."""
        return asdict(self)

    def describe(self) -> str:
        """Return one line for people."""
        parts = ", ".join(
            f"{name} {size / _GIB:.2f}"
            for name, size in self.memory_bytes.items()
            if size and name != "total"
        )
        text = f"about {self.memory_bytes['total'] / _GIB:.2f} GiB ({parts})"
        text += f", {self.trained_parameters:,} trained parameters"
        if self.longest_row_tokens is None:
            text += "; activations are not in it: row lengths are known once rows are encoded"
        return text


def train_needs(
    step: Step, made: Mapping[str, Artifact], runtime: Runtime, records: Iterable[Record]
) -> TrainNeeds | None:
    """Return what a train step would need; None while its model is not there.

    Args:
        step: the step.
        made: finished artifacts by step label.
        runtime: where it would run.
        records: of earlier runs, the oldest first.

    Raises:
        ArtifactDamaged: a file of the model or the rows can't be read.
    """
    model, encoded = _input(step, "model", made), _input(step, "encoded", made)
    if model is None or not any(model.glob("*.safetensors")):
        return None
    from swiftcore.training.estimate import RowSizes, estimate_flops, estimate_memory

    nowhere = Path()
    job = train_job(
        step.recipe, runtime, model, encoded or nowhere, work_dir=nowhere, out_dir=nowhere
    )
    rows = RowSizes.of(_lengths(encoded)) if encoded else None
    longest = _longest(step, rows)
    speed = _speed(records)
    seconds = estimate_flops(job, rows) / speed if rows and rows.num_rows and speed else None
    memory = estimate_memory(job, longest or 0)
    return TrainNeeds(_parts(memory), memory.trained_parameters, longest, seconds)


def _input(step: Step, role: str, made: Mapping[str, Artifact]) -> Path | None:
    value = step.inputs.get(role)
    if isinstance(value, Link):
        artifact = made.get(value.step.label)
        return artifact.path if artifact else None
    return input_path(value) if value is not None else None


def _lengths(encoded: Path) -> list[int]:
    from swiftcore.template import load_encoded

    return load_encoded(encoded, "train").lengths


def _longest(step: Step, rows: "RowSizes | None") -> int | None:
    """Return the tokens of a line of a batch: as they are, else as the recipe limits them."""
    limit = step.recipe.template.max_length
    if step.recipe.train.packing:
        return step.recipe.train.packing_length or limit
    return rows.longest if rows else limit


def _speed(records: Iterable[Record]) -> float | None:
    """Return the operations a second that the last training reached."""
    reached = None
    for record in records:
        share, peak = record.metrics.get("mfu"), record.metrics.get("machine_flops")
        if record.stage == "train" and share and peak:
            reached = share * peak
    return reached


def _parts(memory: "MemoryEstimate") -> dict[str, int]:
    names = ("weights", "gradients", "optimizer", "activations", "logits", "process", "total")
    return {name: getattr(memory, name) for name in names}
