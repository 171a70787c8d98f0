"""Where `swift template` takes its template and rows from: a recipe, or ms-swift's flags.

No stage is run. Rows come from the recipe's ingested dataset where the store has it, else from the
first rows of its sources; the tokenizer comes from the base model's folder or from the store.
"""

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.cli.options import loaded_recipe
from swiftcore.errors import ModelMissing, UsageError
from swiftcore.recipe import LoadedRecipe, build_recipe
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.stages import build_road
from swiftcore.stages.graph import Link, Road
from swiftcore.stages.resolve import resolve_reference
from swiftcore.template import Template

Row = dict[str, Any]
_RECIPES = (".yaml", ".yml")


class OpenedRows:
    """A recipe's template and training rows.

    Args:
        loaded: the recipe.
        store: may hold its dataset and its base model.
        count: most rows to read.

    Attributes:
        template: what the recipe's template section means for its tokenizer.
        told: where the rows come from, once they are read.
    """

    def __init__(self, loaded: LoadedRecipe, store: Store, count: int) -> None:
        self._loaded = loaded
        self._store = store
        self._count = count
        self._origins: list[str] = []
        self.template = _template(loaded, self._tokenizer_folder())
        self.told = ""

    @cached_property
    def _road(self) -> Road:
        return build_road(self._loaded, self._store)

    def rows(self) -> list[Row]:
        """Return the rows, at most as many as were asked for."""
        return self._read[: self._count]

    def rows_through(self, row: int) -> list[Row]:
        """Return at least the rows up to one, however many were asked for."""
        self._count = max(self._count, row + 1)
        return self._read

    def origin(self, row: int) -> str:
        """Return file and line of a row; empty where the dataset was ingested."""
        return self._origins[row] if row < len(self._origins) else ""

    @cached_property
    def _read(self) -> list[Row]:
        from swiftcore.data import SplitRows
        from swiftcore.data.head import head_rows

        data = self._loaded.recipe.data
        dataset = self._ingested()
        if dataset is not None:
            split = SplitRows(dataset.path, "train")
            count = min(self._count, len(split))
            self.told = f"{count:,} of {len(split):,} rows of ingest {dataset.fingerprint[:12]}"
            return split.take(range(count))
        head = head_rows(data, self._count)
        if not head.rows:
            reasons = "; ".join(f"{number} x {reason}" for reason, number in head.left_out.items())
            raise UsageError(
                "the sources hold no row that can be used",
                where="data.dataset",
                found=reasons or "no row",
                expected="rows in one of the forms of docs/row-formats.md",
            )
        which = "all" if head.is_complete else "the first"
        self.told = f"{which} {len(head.rows):,} rows of {', '.join(data.dataset)}"
        if head.left_out:
            self.told += f"; left out: {sum(head.left_out.values()):,}"
        self._origins = head.origins
        return head.rows

    def _ingested(self) -> Artifact | None:
        """Return the recipe's dataset where the store has it."""
        # To look a dataset up means to hash its sources; flags have no name to find it by.
        if not self._loaded.path.is_file():
            return None
        return self._made.get(f"{self._loaded.recipe.name}/ingest")

    @cached_property
    def _made(self) -> dict[str, Artifact]:
        """Return finished artifacts by step, as `swift plan` finds them."""
        made: dict[str, Artifact] = {}
        for step in self._road.steps:
            call = step.call(made)
            if call is not None:
                identity = call.identity(self._store)
                artifact = self._store.lookup(identity.stage, identity.fingerprint).artifact
                if artifact is not None:
                    made[step.label] = artifact
        return made

    def _tokenizer_folder(self) -> Path:
        from swiftcore.stages.contract import input_path

        reference = self._loaded.recipe.model.model
        if reference is not None and not reference.startswith("recipe:"):
            # Weights need not be there: a tokenizer is all that templates need of a model.
            return resolve_reference(reference, self._store).path
        value = self._road.step("template").inputs["tokenizer"]
        if not isinstance(value, Link):
            return input_path(value)
        artifact = self._made.get(value.step.label)
        if artifact is None:
            raise ModelMissing(
                "the recipe's base model is not made yet, so there is no tokenizer",
                where=self._loaded.path,
                found=f"{value.step.label} is not in the store {self._store.root}",
                expected="a finished base model",
                do=f"make it with `swift stage template {self._loaded.path} --out FOLDER`",
            )
        return artifact.path


def opened_rows(
    options: argparse.Namespace, place: Path | None, flags: Sequence[str]
) -> OpenedRows:
    """Open a recipe, or what ms-swift's flags mean.

    Args:
        options: the command's own options.
        place: a recipe, or a file of rows.
        flags: what the command does not know itself.
    """
    if place is not None and place.suffix in _RECIPES:
        if flags:
            raise UsageError(
                "a recipe takes no further flags",
                where="swift template",
                found=" ".join(flags),
                expected="--set SECTION.FIELD=VALUE",
                do="override values of the recipe with --set",
            )
        options.recipe = place
        loaded = loaded_recipe(options)
    elif place is None and not flags:
        raise UsageError(
            "neither rows nor a recipe are given",
            where="swift template",
            expected="RECIPE, or --model FOLDER --dataset FILE",
            do="swift template --help shows both",
        )
    else:
        if options.overrides:
            raise UsageError("--set belongs to a recipe", where="--set", found=options.overrides[0])
        given = [*flags, "--dataset", str(place)] if place is not None else list(flags)
        if options.store:
            given += ["--store", str(options.store)]
        loaded = build_recipe(recipe_from_flags("template", given), path=Path("template-flags"))
    return OpenedRows(loaded, Store(loaded.runtime.store), options.rows)


def _template(loaded: LoadedRecipe, folder: Path) -> Template:
    from swiftcore.models import load_tokenizer
    from swiftcore.models.files import read_json
    from swiftcore.template.dataset import resolve_template

    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    text = config.get("text_config") or config
    return resolve_template(
        loaded.recipe.template,
        load_tokenizer(folder),
        method=loaded.recipe.train.method,
        model_type=config.get("model_type"),
        max_model_length=text.get("max_position_embeddings"),
    )
