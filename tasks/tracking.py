"""What a flow tells MLflow: a parent run for the flow, a child run for each stage that ran.

Nothing here waits for MLflow or fails because of it: events go to the spool and from there to
MLflow when it answers. Registration, which needs an answer, is in `tasks.registry`.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.recipe import LoadedRecipe
from tasks.sink import MlflowSink
from tasks.spool import MlflowAway, Spool

logger = logging.getLogger("prefect.flow_runs.tracking")

_FORWARD_EVERY_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 30.0
_CARD_FILES = ("card.html", "report.html", "report.json", "metrics.json", "loss.png", "report.png")


def spool_folder(store: Store) -> Path:
    """Return where a store keeps what MLflow has not heard yet."""
    return store.root / "spool"


class FlowTracker:
    """The MLflow side of one flow run."""

    def __init__(self, store: Store, key: str, experiment: str) -> None:
        self._key = key
        self._experiment = experiment
        self.sink = MlflowSink(store.root)
        self._spool = Spool(spool_folder(store) / f"{key}.jsonl")
        self._away_until = 0.0
        self._last_forward = 0.0
        self._seen_points: set[tuple[str, str, int]] = set()

    @property
    def run_id(self) -> str | None:
        """Return the MLflow id of the flow's run; None until MLflow has heard of it."""
        return self._spool.sent.runs.get(self._key)

    def child_id(self, step: str) -> str | None:
        """Return the MLflow id of a stage's run in this flow."""
        return self._spool.sent.runs.get(self._child(step))

    def start_flow(self, name: str, loaded: LoadedRecipe, tags: Mapping[str, str]) -> None:
        """Open the parent run, with the recipe as a file and a few values to search by."""
        self._start(self._key, None, name, tags)
        self._add("text", self._key, file="recipe.yaml", text=recipe_text(loaded))
        self._add("params", self._key, values=flat_params(loaded.recipe.model_dump(mode="json")))
        self.forward(now=True)

    def start_stage(self, step: str, tags: Mapping[str, str]) -> None:
        """Open the child run of a stage; starting it again, in a retry, changes nothing."""
        child = self._child(step)
        if child not in self._spool.open_runs():
            self._start(child, self._key, step, tags)
        self.forward()

    def metrics_line(self, step: str, line: Mapping[str, Any]) -> None:
        """Note one metrics line of a training process; a line heard before is left out."""
        at = int(line.get("step", 0))
        moment = _milliseconds(line.get("time"))
        points = []
        for name, value in line.items():
            if name in ("step", "time") or not isinstance(value, int | float):
                continue
            if (step, name, at) not in self._seen_points:
                self._seen_points.add((step, name, at))
                points.append([name, float(value), moment, at])
        if points:
            self._add("metrics", self._child(step), points=points)
            self.forward()

    def system_figures(self, step: str, figures: Mapping[str, float], sample: int) -> None:
        """Note a sample of what the machine was doing."""
        moment = _milliseconds(None)
        points = [[name, value, moment, sample] for name, value in figures.items()]
        self._add("metrics", self._child(step), points=points)
        self.forward()

    def datasets(self, step: str, artifacts: Iterable[Artifact]) -> None:
        """Note which datasets a stage read, with our content digest."""
        items = [
            {
                "name": artifact.record.name,
                "digest": artifact.digest,
                "source": artifact.label,
                "context": step.rpartition("/")[2],
            }
            for artifact in artifacts
        ]
        if items:
            self._add("datasets", self._child(step), items=items)

    def end_stage(self, step: str, artifact: Artifact, tags: Mapping[str, str]) -> None:
        """Close a child run with the artifact's figures and the pages people read."""
        child = self._child(step)
        figures = flat_metrics(artifact.record.metrics)
        moment = _milliseconds(artifact.record.finished or None)
        self._add("metrics", child, points=[[k, v, moment, 0] for k, v in figures.items()])
        pages = [str(p) for name in _CARD_FILES if (p := artifact.path / name).is_file()]
        if pages:
            self._add("files", child, paths=pages, folder=artifact.record.stage)
        self._add("tags", child, values=dict(tags))
        self._end(child, "FINISHED")
        self.forward()

    def fail_stage(self, step: str, message: str, status: str) -> None:
        """Close a child run that made nothing."""
        self._add("tags", self._child(step), values={"error": message[:4900]})
        self._end(self._child(step), status)

    def flow_tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the flow's run."""
        self._add("tags", self._key, values=dict(values))

    def flow_metrics(self, values: Mapping[str, float]) -> None:
        """Set figures of the flow's run."""
        if values:
            moment = _milliseconds(None)
            points = [[name, value, moment, 0] for name, value in values.items()]
            self._add("metrics", self._key, points=points)

    def flow_text(self, file: str, text: str) -> None:
        """Add a text file to the flow's run."""
        self._add("text", self._key, file=file, text=text)

    def end_flow(self, status: str) -> None:
        """Close the flow's run and forward what is left; what MLflow has not heard is kept."""
        self._end(self._key, status)
        self.forward(now=True)
        self._spool.close(remove=self._spool.all_sent())

    def forward(self, *, now: bool = False) -> bool:
        """Send what is spooled if it is time to, and tell whether MLflow has heard everything."""
        clock = time.monotonic()
        if not now and (
            clock < self._away_until or clock - self._last_forward < _FORWARD_EVERY_SECONDS
        ):
            return False
        self._last_forward = clock
        try:
            refused = self._spool.forward(self.sink)
        except MlflowAway as err:
            if self._away_until == 0.0:
                logger.warning(
                    "MLflow at %s is away (%s); the run goes on, and what MLflow should know is "
                    "kept in %s until it is back",
                    self.sink.uri,
                    str(err).splitlines()[0][:200],
                    self._spool.path,
                )
            self._away_until = clock + _RETRY_AFTER_SECONDS
            return False
        for reason in refused:
            logger.warning("MLflow refused %s", reason)
        self._away_until = 0.0
        return True

    def _child(self, step: str) -> str:
        return f"{self._key}/{step}"

    def _start(self, run: str, parent: str | None, name: str, tags: Mapping[str, str]) -> None:
        self._add(
            "start",
            run,
            parent=parent,
            name=name,
            tags=dict(tags),
            experiment=self._experiment,
            time=_milliseconds(None),
        )

    def _end(self, run: str, status: str) -> None:
        self._add("end", run, status=status, time=_milliseconds(None))

    def _add(self, op: str, run: str, **fields: Any) -> None:
        self._spool.append({"op": op, "run": run, **fields})


def replay_spool(store: Store) -> int:
    """Forward what earlier flow runs could not tell MLflow; return how many spools are done.

    A spool whose flow still runs is left to it. A run that its flow never ended was killed, and is
    closed as such.

    Raises:
        MlflowAway: MLflow still does not answer; nothing is lost.
    """
    done = 0
    sink = MlflowSink(store.root)
    for spool in Spool.orphans(spool_folder(store)):
        try:
            spool.mend()
            for run in spool.open_runs():
                now = _milliseconds(None)
                spool.append({"op": "end", "run": run, "status": "KILLED", "time": now})
            for reason in spool.forward(sink):
                logger.warning("MLflow refused %s", reason)
            done += spool.all_sent()
        finally:
            spool.close(remove=spool.all_sent())
    return done


def recipe_text(loaded: LoadedRecipe) -> str:
    """Return the recipe as YAML with every default and override resolved."""
    import yaml

    head = "".join(f"# --set {text}\n" for text in loaded.overrides)
    values = loaded.recipe.model_dump(mode="json")
    return f"# {loaded.path}\n{head}" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def flat_params(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the plain values of a recipe under dotted names; the whole recipe is a file."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 250):
            flat[f"{prefix}{key}"] = str(value)
    return flat


def flat_metrics(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return numbers under slash-joined names: {"merged": {"Act.EM": 1}} is merged/Act.EM."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_metrics(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = float(value)
    return flat


def _milliseconds(moment: str | None) -> int:
    if moment is None:
        return time.time_ns() // 1_000_000
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
