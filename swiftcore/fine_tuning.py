"""Fine-tuning from Python: SwiftLLM's names over the stages that every other door calls.

A `TrainingConfig` becomes a recipe, so the same call again reuses what it made, a stopped one goes
on from its newest checkpoint, and `swift lineage` knows where the result came from. Training runs
in processes of its own; callbacks run in this one, and hear its metric lines.
"""

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from swiftcore.artifacts import Artifact, Outcome, Store
from swiftcore.errors import UsageError
from swiftcore.progress import Progress, Silent, TerminalProgress
from swiftcore.recipe import LoadedRecipe, build_recipe
from swiftcore.recipe.tasks import TaskType
from swiftcore.stages import Quiet, Step, build_road, run_steps

Method = Literal["lora", "qlora", "full"]
DatasetFormat = Literal["sft_messages", "sft_completion", "pretraining", "code"]
_TYPES = {"no": None, "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_TEXTS = ("pretraining", "code")


@dataclass(frozen=True)
class LoRAConfig:
    """Which low-rank matrices are trained.

    Args:
        r: their rank.
        alpha: the update is alpha / r * B A.
        dropout: before the matrices.
        target_modules: ends of module names, or all-linear.
        use_rslora: scale by alpha / sqrt(r).
        use_dora: train magnitude and direction apart.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: Sequence[str] = ("all-linear",)
    use_rslora: bool = False
    use_dora: bool = False


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """When a training ends before its last epoch.

    Args:
        patience: validations without a better loss after which it ends.
    """

    patience: int = 3


@dataclass(frozen=True)
class TrainingConfig:
    """What to train on what, and how.

    Args:
        model: folder, recipe:PATH, artifact:FINGERPRINT or a registered model.
        train_data: a file, several, or a folder of documents.
        val_data: the same, for validation.
        hf_dataset: a dataset on the Hugging Face hub, added to `train_data`.
        hf_subset: its subset.
        hf_max_samples: how many of its rows.
        dataset_format: pretraining or code for texts without turns; a folder of documents is
            pretraining unless it is said to be code. Chat formats are recognised row by row.
        task_type: causal_lm writes text; seq_cls, embedding, reranker and generative_reranker score
            it, from rows with labels or pairs.
        num_labels: seq_cls: classes, or 1 for a number.
        method: lora, qlora (over a base in 4 bits) or full.
        lora: the matrices; defaults of `LoRAConfig` where it is None.
        learning_rate: at its peak; None is 1e-5 for full and 1e-4 otherwise.
        num_epochs: passes over the rows.
        max_steps: replaces num_epochs where it is given.
        per_device_batch_size: rows a forward.
        gradient_accumulation_steps: None makes a batch of at least 16 rows.
        max_seq_length: longest row in tokens.
        lr_scheduler: schedule, as transformers names it.
        warmup_ratio: share of steps spent warming up.
        weight_decay: of AdamW.
        mixed_precision: no leaves the model's own type.
        logging_steps: steps between metric lines.
        save_steps: steps between checkpoints and validations.
        save_total_limit: checkpoints to keep.
        early_stopping: None trains to the end.
        seed: of initialisation, dropout and row order.
        name: of the recipe; artifacts are called by it.
        output_dir: where the trained folder is copied to; None leaves it in the store.
        store: folder of all artifacts.
        options: any other field of a recipe: {"train.packing": True}.
    """

    model: str | None = None
    train_data: str | Path | Sequence[str | Path] | None = None
    val_data: str | Path | Sequence[str | Path] | None = None
    hf_dataset: str | None = None
    hf_subset: str | None = None
    hf_max_samples: int | None = None
    dataset_format: DatasetFormat | None = None
    task_type: TaskType = "causal_lm"
    num_labels: int | None = None
    method: Method = "lora"
    lora: LoRAConfig | None = None
    learning_rate: float | None = None
    num_epochs: float = 3.0
    max_steps: int | None = None
    per_device_batch_size: int = 1
    gradient_accumulation_steps: int | None = None
    max_seq_length: int | None = None
    lr_scheduler: str = "cosine"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.1
    mixed_precision: Literal["no", "fp32", "fp16", "bf16"] = "no"
    logging_steps: int = 5
    save_steps: int = 500
    save_total_limit: int | None = None
    early_stopping: EarlyStoppingConfig | None = None
    seed: int = 42
    name: str = "fine-tune"
    output_dir: str | Path | None = None
    store: str | Path = ".swift/store"
    options: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self) -> LoadedRecipe:
        """Return the recipe that this configuration stands for.

        Raises:
            UsageError: no model or no data is named, or settings contradict each other.
            RecipeError: a value is wrong; all of them are listed.
        """
        sections: dict[str, Any] = {
            "name": self.name,
            "model": self._model(),
            "data": self._data(),
            "template": {"max_length": self.max_seq_length},
            "tuner": self._tuner(),
            "train": self._train(),
            "runtime": {"store": str(self.store)},
        }
        for path, value in self.options.items():
            *parents, last = path.split(".")
            target = sections
            for parent in parents:
                target = target.setdefault(parent, {})
            target[last] = value
        return build_recipe(sections, path=Path(self.name))

    def _model(self) -> dict[str, Any]:
        if self.model is None:
            raise _missing("model", "the folder of a model, or recipe:PATH")
        found: dict[str, Any] = {
            "model": self.model,
            "task_type": self.task_type,
            "num_labels": self.num_labels,
        }
        if self.mixed_precision != "no":
            found["torch_dtype"] = _TYPES[self.mixed_precision]
        if self.method == "qlora":
            found |= {"quant_method": "bnb", "quant_bits": 4}
        return found

    def _data(self) -> dict[str, Any]:
        sources = _paths(self.train_data)
        if self.hf_dataset:
            subset = f":{self.hf_subset}" if self.hf_subset else ""
            sample = f"#{self.hf_max_samples}" if self.hf_max_samples else ""
            sources.append(f"hf::{self.hf_dataset}{subset}{sample}")
        if not sources:
            raise _missing("train_data", "a file, a list of files, a folder, or hf_dataset")
        found: dict[str, Any] = {"dataset": sources, "val_dataset": _paths(self.val_data)}
        if self._folders():
            form = "code" if self.dataset_format == "code" else "pretraining"
            found["documents"] = {"format": form}
        return found

    def _folders(self) -> bool:
        return any(Path(source).is_dir() for source in _paths(self.train_data))

    def _tuner(self) -> dict[str, Any]:
        if self.method == "full":
            if self.lora is not None:
                raise UsageError(
                    "full training has no low-rank matrices",
                    where="TrainingConfig.lora",
                    found="method full and a LoRAConfig",
                    do="leave the LoRAConfig out, or set method to lora",
                )
            return {"train_type": "full"}
        lora = self.lora or LoRAConfig()
        return {
            "train_type": "lora",
            "lora_rank": lora.r,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": list(lora.target_modules),
            "use_rslora": lora.use_rslora,
            "use_dora": lora.use_dora,
        }

    def _train(self) -> dict[str, Any]:
        texts = self.dataset_format in _TEXTS or (self.dataset_format is None and self._folders())
        found: dict[str, Any] = {
            "method": "pt" if texts else "sft",
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.num_epochs,
            "per_device_train_batch_size": self.per_device_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "lr_scheduler_type": self.lr_scheduler,
            "warmup_ratio": self.warmup_ratio,
            "weight_decay": self.weight_decay,
            "logging_steps": self.logging_steps,
            "save_steps": self.save_steps,
            "save_total_limit": self.save_total_limit,
            "seed": self.seed,
        }
        if self.max_steps is not None:
            found["max_steps"] = self.max_steps
        if self.early_stopping is not None:
            found["early_stop_interval"] = self.early_stopping.patience
        return found


class TrainerCallback:
    """Hears what a training does; each method does nothing unless a subclass replaces it.

    An exception ends the training: its last checkpoint is kept, and the same call goes on from it.
    """

    def on_train_begin(self, config: TrainingConfig) -> None:
        """Hear that work begins."""

    def on_log(self, metrics: Mapping[str, Any]) -> None:
        """Hear a metric line: step, epoch, and loss with learning rate and speed, or eval_loss."""

    def on_train_end(self, result: "TrainingResult") -> None:
        """Hear how the training ended."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Args:
        path: folder of the adapter or the model.
        metrics: as in the artifact's record: train_loss, eval_loss, tokens_per_second and others.
        reused: whether nothing had to be trained, since the same was asked for before.
        fingerprint: of the artifact.
    """

    path: Path
    metrics: dict[str, float]
    reused: bool
    fingerprint: str


class Trainer:
    """Runs a configuration: rows are read and encoded, the model is trained, the result checked.

    Args:
        config: what to do.
        callbacks: who hears of it.
        show_progress: print a line of progress on stderr.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        callbacks: Sequence[TrainerCallback] = (),
        show_progress: bool = True,
    ) -> None:
        self.config = config
        self._callbacks = tuple(callbacks)
        self._show_progress = show_progress
        self._loaded = config.recipe()

    def train(self) -> TrainingResult:
        """Make or reuse every step up to the trained folder.

        Raises:
            SwiftError: what a stage raised, as on the command line.
        """
        for callback in self._callbacks:
            callback.on_train_begin(self.config)
        store = Store(self._loaded.runtime.store)
        road = build_road(self._loaded, store)
        ears = _Ears(self._callbacks, self._show_progress)
        made = run_steps(road.until("train"), store, self._loaded.runtime, ears)
        label = road.step("train").label
        result = _result(made[label], ears.reused[label], self.config.output_dir)
        for callback in self._callbacks:
            callback.on_train_end(result)
        return result


def fine_tune(
    model: str | None = None,
    train_data: str | Path | Sequence[str | Path] | None = None,
    *,
    lora_config: LoRAConfig | None = None,
    training_config: TrainingConfig | None = None,
    lora_r: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    show_progress: bool = True,
    **settings: Any,
) -> TrainingResult:
    """Train a model on rows, documents or a hub dataset, in one call.

    Args:
        model: replaces the model of `training_config`.
        train_data: replaces its data.
        lora_config: replaces its LoRA settings.
        training_config: everything else; defaults where it is None.
        lora_r: rank, where no `lora_config` is given.
        callbacks: who hears of the training.
        show_progress: print a line of progress on stderr.
        settings: further fields of `TrainingConfig`, such as output_dir or hf_dataset.

    Raises:
        UsageError: there is no such setting, or two of them say different things.
        SwiftError: what a stage raised.
    """
    config = training_config or TrainingConfig()
    unknown = sorted(set(settings) - set(config.__dataclass_fields__))
    if unknown:
        raise UsageError(
            "there is no such setting",
            where="fine_tune",
            found=", ".join(unknown),
            expected=", ".join(config.__dataclass_fields__),
            do="correct the name; any field of a recipe goes into options",
        )
    if lora_r is not None:
        if lora_config is not None:
            raise UsageError(
                "the rank is given twice", where="fine_tune", found="lora_r and lora_config"
            )
        lora_config = LoRAConfig(r=lora_r)
    given = {"model": model, "train_data": train_data, "lora": lora_config}
    changes = {name: value for name, value in given.items() if value is not None}
    config = replace(config, **changes, **settings)
    return Trainer(config, callbacks=callbacks, show_progress=show_progress).train()


class _Ears(Quiet):
    """Passes metric lines of the training on, and notes what was reused."""

    def __init__(self, callbacks: Sequence[TrainerCallback], show_progress: bool) -> None:
        self.reused: dict[str, bool] = {}
        self._callbacks = callbacks
        self._show_progress = show_progress

    def started(self, step: Step) -> Progress:
        return TerminalProgress(step.stage.name) if self._show_progress else Silent()

    def metrics(self, step: Step, line: Mapping[str, Any]) -> None:
        for callback in self._callbacks:
            callback.on_log(dict(line))

    def finished(self, step: Step, outcome: Outcome) -> None:
        self.reused[step.label] = outcome.reused


def _result(artifact: Artifact, reused: bool, output_dir: str | Path | None) -> TrainingResult:
    path = artifact.path if output_dir is None else _copy(artifact, Path(output_dir))
    return TrainingResult(path, dict(artifact.record.metrics), reused, artifact.fingerprint)


def _copy(artifact: Artifact, target: Path) -> Path:
    """Copy a trained folder; an earlier result of ours is replaced, anything else is left alone."""
    if target.exists() and not (target / "record.json").is_file() and any(target.iterdir()):
        raise UsageError(
            "the output folder holds something else",
            where=target,
            found=", ".join(sorted(path.name for path in target.iterdir())[:5]),
            expected="a new or an empty folder, or an earlier result",
            do="name another folder; the result itself is in the store: " + str(artifact.path),
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:8]}")
    shutil.copytree(artifact.path, draft)
    if target.exists():
        shutil.rmtree(target)
    os.replace(draft, target)
    return target


def _paths(value: str | Path | Sequence[str | Path] | None) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str | Path) else [str(part) for part in value]


def _missing(name: str, expected: str) -> UsageError:
    return UsageError(
        f"no {name} is named",
        where=f"TrainingConfig.{name}",
        expected=expected,
        do=f"give {name} to fine_tune or TrainingConfig",
    )
