"""transformers' Trainer with our loss, row order, metric lines and verified checkpoints."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from swiftcore.errors import TrainingFailed, UsageError
from swiftcore.recipe.checkpointing import best_metric
from swiftcore.training import checkpoints
from swiftcore.training.answering import Answering
from swiftcore.training.batches import Batches
from swiftcore.training.distributed.strategies import Strategy
from swiftcore.training.distributed.world import AgreedStop, PeerFailed, World
from swiftcore.training.job import TrainJob
from swiftcore.training.meter import Meter
from swiftcore.training.metrics import MetricsLog
from swiftcore.training.objectives import Objective
from swiftcore.training.optimizers import RestAtEnd, lisa_callbacks, make_optimizer, rest
from swiftcore.training.plugins import plugin
from swiftcore.training.resuming import CheckpointRecipe
from swiftcore.training.saving import CheckpointWriter, removed_on_failure
from swiftcore.training.stopping import StopRequest
from swiftcore.training.tally import Tally
from swiftcore.training.token_figures import TokenFigures, means, merge
from swiftcore.training.weights_taker import WeightsTaker
from swiftcore.training.workspace import Workspace
from swiftcore.tuners.adalora import RankBudget

# Row numbers that an error names; a batch may have hundreds.
_MAX_NAMED_ROWS = 32


class SwiftTrainer(WeightsTaker, CheckpointWriter):
    """Trains on encoded rows and writes one metric line a logging step.

    Args:
        model: a prepared model; its forward is replaced by one that returns the loss.
        args: made by `training_arguments`.
        job: the job, for its sections and folders.
        batches: the rows and their order.
        objective: what a batch is, its loss, its divisor, and the figures of an evaluation.
        stop: set when somebody asked the process to end.
        world: all processes of the run; None is this one.
        strategy: how they train together.
        last_step: optimizer step after which the run ends, if that is before the schedule's end.
    """

    # compute_loss divides by the targets of the whole step, not of one batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        job: TrainJob,
        batches: Batches,
        objective: Objective,
        stop: StopRequest | AgreedStop,
        world: World | None = None,
        strategy: Strategy | None = None,
        last_step: int = sys.maxsize,
    ) -> None:
        self.notes = objective.install(model)
        self.tally = Tally()
        self.meter = Meter.of(model, job)
        self._job = job
        self._batches = batches
        self._objective = objective
        self._stop = stop
        self._budget = RankBudget.of(model)
        self._metrics = MetricsLog(Workspace(job.work_dir).metrics)
        self._recipe = CheckpointRecipe(job)
        self._figures = TokenFigures.of(job, "train")
        self._answering = Answering(job) if job.train.predict_with_generate else None
        self._last_step = last_step
        self._evaluated_step: int | None = None
        self._clock = time.monotonic()
        super().__init__(
            model=model,
            args=args,
            job=job,
            world=world,
            strategy=strategy,
            data_collator=objective.collate,
            train_dataset=batches.train,
            eval_dataset=batches.eval or None,
            callbacks=[
                _Clock(self.meter),
                _StepEnd(self.tally_step, stop, last_step),
                _RankCut(self._budget),
                RestAtEnd(),
                *lisa_callbacks(model, job),
                *(plugin("callback", name)() for name in job.train.callbacks),
            ],
        )

    def resume_tally(self, checkpoint: Path) -> None:
        """Go on counting where a checkpoint stopped."""
        self.tally = Tally.load(checkpoint)
        if self._budget:
            self._budget.load(checkpoint)

    def is_finished(self, step: int) -> bool:
        """Tell whether nothing is left to train after the checkpoint of this step."""
        return step >= self._last_step or self._is_out_of_patience()

    def take_best(self) -> str:
        """Load the best checkpoint's weights and return a note on it.

        Raises:
            TrainingFailed: its files are not what was written.
        """
        step = self.tally.best_step
        assert step is not None  # an evaluation comes with each checkpoint, and one ended the run
        path = checkpoints.at_step(self._folder, step)
        if problem := checkpoints.fault(path, self._job.identity()):
            raise TrainingFailed(
                "the best checkpoint can't be used",
                where=path,
                found=problem,
                do="start the same run again after removing its checkpoints",
            )
        if step != self.state.global_step:
            self._load_from_checkpoint(str(path))
        name = best_metric(self._job.train)
        return (
            f"the output is the best checkpoint: step {step}, {name} {self.tally.best_metric:.6g}"
        )

    def tally_step(self) -> None:
        """Close an optimizer step and add the time since the last one."""
        self.writing.check()
        now = time.monotonic()
        self.tally.seconds += now - self._clock
        self._clock = now
        self.tally.end_step()
        self.meter.end_step()
        self._stop.agree()

    def create_optimizer(self, model: Any = None) -> Any:
        """Return the job's optimizer: one of ours, or what Trainer makes of its arguments."""
        if self.optimizer is None:
            trained: Any = model or self.model
            decayed = self.get_decay_parameter_names(trained)
            self.optimizer = make_optimizer(trained, self._job, self.args, decayed)
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._batches.order

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return self._batches.eval_order or super()._get_eval_sampler(eval_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Tensor:
        divisor = sum(self._objective.divisor(batch) for batch in batch_samples)
        if self.world.size > 1:
            # Gradients are averaged over processes, and the whole loss is a sum.
            divisor = self.world.sum([divisor])[0] / self.world.size
        return torch.tensor(divisor or 1)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Run one forward and backward pass; a loss that is not finite ends the training."""
        rows = inputs["rows"].tolist()
        tokens, targets = int(inputs["lengths"].sum()), self._objective.num_targets(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        value = loss.item()
        self.meter.add_batch(inputs["lengths"].tolist(), targets)
        share = [value / self.world.size, tokens, targets]
        total, all_tokens, all_targets = self.world.sum(share)
        sharers = self.world.sharers
        self.tally.add_batch(total, rows, int(all_tokens) // sharers, int(all_targets) // sharers)
        if not math.isfinite(value):
            raise self._not_finite("loss", value, rows)
        if not math.isfinite(total):
            raise PeerFailed("the loss of another process is not finite")
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the objective's loss, summed over the batch and divided by the step's divisor."""
        outputs = model(**self._objective.inputs(inputs))
        loss = outputs["loss"] / num_items_in_batch
        if model.training:
            self._tell(inputs, outputs)
            if "balance_loss" in outputs:
                loss = loss + outputs["balance_loss"] / self.current_gradient_accumulation_steps
        if self._budget and model.training:
            loss = loss + self._budget.penalty() / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _tell(self, inputs: dict[str, Any], outputs: Any) -> None:
        if self._figures is None:
            return
        counts = self._objective.num_targets(inputs)
        own = self._figures.sums(inputs, outputs) if counts else {}
        for sums in self.world.gather_teams(own):
            merge(self.tally.figures, sums)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        found: Any = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = float(found)
        # float16 training meets infinite gradients by design: the scaler skips such a step.
        if not math.isfinite(norm) and not self.args.fp16:
            raise self._not_finite("gradient norm", norm, self.tally.step_rows)
        return norm

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return loss and figures over all validation rows; the loss is divided as in training."""
        model: Any = self.model_wrapped
        model.eval()
        rest(self.optimizer)
        total, divisor, score = 0.0, 0.0, self._objective.score()
        with self.meter.paused(), torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                loss, outputs = self.compute_loss(model, inputs, True, num_items_in_batch=1)
                share = self._objective.divisor(batch)
                total += loss.item() if share else 0.0
                divisor += share
                score.add(batch, outputs)
        total, divisor = self.world.sum([total, divisor])
        metrics = {"eval_loss": total / (divisor or 1)}
        metrics |= {f"eval_{name}": value for name, value in score.metrics().items()}
        metrics |= self._answered()
        if not math.isfinite(metrics["eval_loss"]):
            raise self._not_finite("validation loss", metrics["eval_loss"], [])
        self.log(dict(metrics))
        self._evaluated_step = self.state.global_step
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _answered(self) -> dict[str, float]:
        if self._answering is None:
            return {}
        together: dict[str, list[float]] = {}
        with self.meter.paused():
            own = self._answering.sums(self.model, self.world.rank, self.world.size)
            for sums in self.world.gather(own):
                merge(together, sums)
        return {f"eval_{name}": value for name, value in means(together).items()}

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        name = f"eval_{best_metric(self._job.train)}"
        if name not in metrics:
            raise UsageError(
                "there is no such validation metric",
                where="train.metric_for_best_model",
                found=name.removeprefix("eval_"),
                expected=", ".join(known.removeprefix("eval_") for known in metrics),
                do="choose one of them",
            )
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best:
            self.tally.best_step, self.tally.best_metric = self.state.global_step, metrics[name]
        return is_best

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a metric line for a training or a validation loss, and nothing for the rest."""
        place = {"step": self.state.global_step, "epoch": round(self.state.epoch or 0.0, 6)}
        if "loss" in logs:
            line = {
                "loss": self.tally.take_window(),
                "learning_rate": logs["learning_rate"],
                "grad_norm": float(logs["grad_norm"]),
                **means(self.tally.figures),
                **self.meter.take_window(),
            }
            self.tally.figures = {}
            self._note({**place, **line})
        elif "eval_loss" in logs:
            self.tally.last_eval_loss = logs["eval_loss"]
            line = {name: value for name, value in logs.items() if name.startswith("eval_")}
            self._note({**place, **line})

    def _note(self, line: dict[str, Any]) -> None:
        if self.world.leads:
            self._metrics.append(line)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        path = self._folder / f"checkpoint-{self.state.global_step}"
        if any(self.world.gather(path.exists())):
            return
        rest(self.optimizer)
        if self._evaluated_step == self.state.global_step:
            self.tally.count_save(self.state.global_step)
        if self._is_out_of_patience():
            self.control.should_training_stop = True
        with self.meter.paused():
            with removed_on_failure(path):
                super()._save_checkpoint(model, trial)
                if not self.world.leads:
                    return
                self._recipe.write(path)
                self.tally.save(path)
                if self._budget:
                    self._budget.save(path)
            self.complete(path, self.tally.best_step)

    def _is_out_of_patience(self) -> bool:
        interval = self._job.train.early_stop_interval
        return interval is not None and self.tally.saves_without_gain >= interval

    def _not_finite(self, what: str, value: float, rows: Sequence[int]) -> TrainingFailed:
        self.writing.settle()
        good, _ = checkpoints.newest_verified(self._folder, self._job.identity())
        named = ", ".join(map(str, rows[:_MAX_NAMED_ROWS]))
        more = f" and {len(rows) - _MAX_NAMED_ROWS} more" if len(rows) > _MAX_NAMED_ROWS else ""
        return TrainingFailed(
            f"the {what} is {value} at step {self.state.global_step + 1}",
            where=f"step {self.state.global_step + 1}"
            + (f", rows {named}{more} of the train split" if rows else ""),
            found=f"last good checkpoint: {good.path.name if good else 'none'}",
            expected="a finite number",
            do="look at these rows in the template stage's output, lower train.learning_rate, "
            "or set train.max_grad_norm",
        )


class _Clock(TrainerCallback):
    """Starts the meter when the training starts, after everything was loaded."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count time from here on."""
        self._meter.start()


class _StepEnd(TrainerCallback):
    """Counts steps, logs the last one, and turns a request to stop into a checkpoint and an end."""

    def __init__(self, tally_step: Any, stop: StopRequest | AgreedStop, last_step: int) -> None:
        self._tally_step = tally_step
        self._stop = stop
        self._last_step = last_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Decide what happens after an optimizer step."""
        self._tally_step()
        if state.global_step >= min(self._last_step, state.max_steps):
            control.should_log = True
            control.should_training_stop = True
            # What goes by epochs follows at the epoch's end, which this step is then.
            control.should_evaluate |= args.eval_strategy == "steps"
            control.should_save |= args.save_strategy == "steps"
        elif self._stop.requested:
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the end of a stopped epoch from being taken for the end of a whole one."""
        if self._stop.requested and state.global_step < min(self._last_step, state.max_steps):
            control.should_save = False
            control.should_evaluate = False


class _RankCut(TrainerCallback):
    """Lets AdaLoRA cut its ranks while the gradients of the step are there."""

    def __init__(self, budget: RankBudget | None) -> None:
        self._budget = budget

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut ranks after an optimizer step."""
        if self._budget:
            self._budget.after_step(state.global_step)
