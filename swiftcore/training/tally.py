"""Running sums of a training run, saved with each checkpoint so that a resume goes on counting."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "tally.json"


@dataclass
class Tally:
    """Losses and tokens so far.

    A step's loss is the mean over the label tokens of its batch; a logged loss is the mean of the
    steps since the last log line. transformers keeps these sums in memory only, so that a resumed
    run would log other numbers than an uninterrupted one.
    """

    step_loss: float = 0.0
    window_loss: float = 0.0
    window_steps: int = 0
    total_loss: float = 0.0
    total_steps: int = 0
    tokens: int = 0
    label_tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    last_eval_loss: float | None = None
    best_step: int | None = None
    best_metric: float | None = None
    saves_without_gain: int = 0
    figures: dict[str, list[float]] = field(default_factory=dict)
    step_rows: list[int] = field(default_factory=list)

    def add_batch(self, loss: float, rows: list[int], tokens: int, label_tokens: int) -> None:
        """Count one forward and backward pass; `loss` is its share of the step's loss."""
        self.step_loss += loss
        self.step_rows += rows
        self.tokens += tokens
        self.label_tokens += label_tokens

    def end_step(self) -> None:
        """Close an optimizer step."""
        self.window_loss += self.step_loss
        self.window_steps += 1
        self.total_loss += self.step_loss
        self.total_steps += 1
        self.step_loss = 0.0
        self.step_rows = []

    def take_window(self) -> float:
        """Return the mean loss of the steps since the last call."""
        mean = self.window_loss / self.window_steps
        self.window_loss, self.window_steps = 0.0, 0
        self.first_loss = mean if self.first_loss is None else self.first_loss
        self.last_loss = mean
        return mean

    def count_save(self, step: int) -> None:
        """Count an evaluated checkpoint: how many there were since the best one."""
        self.saves_without_gain = 0 if step == self.best_step else self.saves_without_gain + 1

    def save(self, folder: Path) -> None:
        """Write the sums beside a checkpoint."""
        (folder / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Tally":
        """Return the sums that were saved beside a checkpoint."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
