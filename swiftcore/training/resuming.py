"""Going on from a checkpoint that the recipe names, and the recipe that every checkpoint holds.

A stopped run finds its own checkpoints by itself. `train.resume_from_checkpoint` is for another
one: a copy, or that of a run in another store. With the optimizer's state it has to be of the very
same recipe, model and rows; with `resume_only_model` its weights alone are taken.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from swiftcore.artifacts.digests import sha256_file, tree_digest
from swiftcore.errors import UsageError
from swiftcore.training import checkpoints
from swiftcore.training.checkpoints import Checkpoint
from swiftcore.training.job import RESUME_SETTINGS, TrainJob
from swiftcore.training.workspace import write_atomically

RECIPE = "recipe.json"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_WHERE = "train.resume_from_checkpoint"


class CheckpointRecipe:
    """What a run is made of, as its checkpoints tell it.

    Args:
        job: the run.
    """

    def __init__(self, job: TrainJob) -> None:
        self._job = job

    @cached_property
    def content(self) -> dict[str, Any]:
        """Sections that differ from their defaults, and digests of the rows and the model."""
        job = self._job
        return {
            "schema": 1,
            "train": job.train.model_dump(
                mode="json", exclude_defaults=True, exclude=set(RESUME_SETTINGS)
            ),
            "tuner": job.tuner.model_dump(mode="json", exclude_defaults=True),
            "torch_dtype": job.torch_dtype,
            "attn_impl": job.attn_impl,
            "rows": sha256_file(job.encoded_dir / "train.parquet"),
            "model": sha256_file(job.model_dir / "config.json"),
        }

    def write(self, folder: Path) -> None:
        """Write it beside a checkpoint."""
        write_atomically(folder / RECIPE, self.content)

    def differences(self, folder: Path) -> list[str]:
        """Return what a checkpoint's recipe has that is not this run's, one line a setting."""
        theirs = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return [
            f"{name}: {_shown(theirs, name)} there, {_shown(self.content, name)} here"
            for name in _names(theirs) | _names(self.content)
            if _value(theirs, name) != _value(self.content, name)
        ]


def checkpoint_digest(name: str) -> str:
    """Return what a named checkpoint adds to the identity of a run.

    Raises:
        UsageError: there is no checkpoint in the folder.
    """
    folder = Path(name).expanduser()
    record = folder / checkpoints.RECORD
    if record.is_file():
        return sha256_file(record)
    files = [file for pattern in _WEIGHTS for file in sorted(folder.glob(pattern))]
    if not files:
        raise UsageError(
            "there is no checkpoint",
            where=_WHERE,
            found=folder,
            expected="a folder checkpoint-N with weights in safetensors files",
            do="name the checkpoint's own folder; a stopped run needs no such setting",
        )
    return tree_digest((file.name, sha256_file(file)) for file in files)


def named_checkpoint(job: TrainJob) -> Checkpoint | None:
    """Return the checkpoint that a job's recipe names, fit for what is asked of it.

    Raises:
        UsageError: it belongs to another recipe, or holds too little.
    """
    train = job.train
    if train.resume_from_checkpoint is None:
        return None
    folder = Path(train.resume_from_checkpoint).expanduser()
    if not train.resume_only_model:
        _require_same_run(folder, job)
    state = folder / "trainer_state.json"
    if train.ignore_data_skip:
        return Checkpoint(folder, 0, weights_alone=True)
    if not state.is_file():
        raise UsageError(
            "the checkpoint does not say how far it is",
            where=_WHERE,
            found=f"no {state.name} in {folder}",
            do="set train.ignore_data_skip to begin at the first row with its weights",
        )
    step = json.loads(state.read_text(encoding="utf-8"))["global_step"]
    return Checkpoint(folder, step, weights_alone=train.resume_only_model)


def require_fitting_weights(folder: Path, model: Any) -> None:
    """Refuse a checkpoint whose tensors are not those of the model to train.

    Raises:
        UsageError: names or shapes differ.
    """
    theirs, ours = _stored_shapes(folder), _shapes(model)
    missing = sorted(ours.keys() - theirs.keys())
    unknown = sorted(theirs.keys() - ours.keys())
    other = sorted(name for name in theirs.keys() & ours.keys() if theirs[name] != ours[name])
    wrong = [name for names in (missing, unknown, other) for name in names[:3]]
    if not wrong:
        return
    raise UsageError(
        "the checkpoint's weights are another model's",
        where=_WHERE,
        found=f"{len(missing)} missing, {len(unknown)} unknown, {len(other)} of another shape: "
        + ", ".join(wrong),
        expected="a checkpoint of this model and tuner, with the same rank and modules",
        do="check model.model and the tuner section",
    )


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    return shapes


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(model)
    else:
        # Tied weights are stored once.
        tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        state = {name: value for name, value in model.state_dict().items() if name not in tied}
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _require_same_run(folder: Path, job: TrainJob) -> None:
    problem = checkpoints.fault(folder, job.identity())
    recipe = CheckpointRecipe(job)
    different = recipe.differences(folder) if (folder / RECIPE).is_file() else []
    if problem is None and not different and (folder / "optimizer.pt").is_file():
        return
    if problem is None and not different:
        problem = "it holds no state of the optimizer"
    raise UsageError(
        "training can't go on from this checkpoint",
        where=_WHERE,
        found="\n".join(
            [f"{folder}: {problem or 'it belongs to another training job'}", *different]
        ),
        expected="a whole checkpoint of the same recipe, model and rows",
        do="mend the recipe, or set train.resume_only_model to take the weights alone",
    )


def _names(content: dict[str, Any]) -> set[str]:
    inner = {f"{name}.{key}" for name in ("train", "tuner") for key in content.get(name, {})}
    return inner | (content.keys() - {"train", "tuner", "schema"})


def _value(content: dict[str, Any], name: str) -> Any:
    section, dot, key = name.partition(".")
    return content.get(section, {}).get(key) if dot else content.get(section)


def _shown(content: dict[str, Any], name: str) -> str:
    value = _value(content, name)
    if name in ("rows", "model"):
        return f"sha256 {str(value)[:12]}"
    return "the default" if value is None else json.dumps(value)
