"""A road of stages that only write files: the layers around stages, tested in milliseconds."""

from collections.abc import Callable
from pathlib import Path

from swiftcore.artifacts import Produced, Store
from swiftcore.recipe import LoadedRecipe
from swiftcore.stages import Link, Road, Source, Stage, StageRun, Step
from tests.roads import write_recipe, write_rows

Body = Callable[[StageRun], Produced | None]


class SmallRoad:
    """Builds ingest -> scratch -> template -> train, and counts how often each body runs."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.rows = write_rows(folder / "rows.jsonl", [{"messages": []}])
        self.recipe = write_recipe(
            folder / "recipes" / "small.yaml",
            {
                "name": "small",
                "model": {"scratch": {}},
                "data": {"dataset": [str(self.rows)]},
                "tuner": {"train_type": "full"},
                "runtime": {"store": str(folder / "store")},
            },
        )
        self.ran: list[str] = []
        self.bodies: dict[str, Body] = {}

    def build(self, loaded: LoadedRecipe, store: Store) -> Road:
        """Stand in for `swiftcore.stages.build_road`."""
        recipe = loaded.recipe
        ingest = Step(self._stage("ingest"), recipe, {"rows": Source(self.rows, "rows.jsonl")})
        scratch = Step(self._stage("scratch"), recipe, {"dataset": Link(ingest)})
        template = Step(
            self._stage("template"), recipe, {"dataset": Link(ingest), "tokenizer": Link(scratch)}
        )
        train = Step(
            self._stage("train"), recipe, {"encoded": Link(template), "model": Link(scratch)}
        )
        return Road(recipe, (ingest, scratch, template, train))

    def _stage(self, name: str) -> Stage:
        def run(stage_run: StageRun) -> Produced:
            self.ran.append(name)
            (stage_run.area.out / "made.txt").write_text(f"{name} {stage_run.recipe.train.seed}")
            produced = self.bodies[name](stage_run) if name in self.bodies else None
            return produced or Produced(metrics={"figure": 1.0})

        return Stage(name, 1, lambda recipe: self._config(name, recipe), run)

    @staticmethod
    def _config(name: str, recipe) -> dict:
        return {"seed": recipe.train.seed} if name == "train" else {}
