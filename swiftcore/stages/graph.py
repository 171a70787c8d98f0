"""The steps of a recipe and how they feed each other, without running anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swiftcore.artifacts import Artifact, Store
from swiftcore.errors import ModelMissing, RecipeError
from swiftcore.recipe import LoadedRecipe, Recipe, load_recipe
from swiftcore.stages.cached import cached_datasets, rows_behind
from swiftcore.stages.contract import (
    TOKENIZER_FILES,
    Source,
    Stage,
    StageCall,
    StageInput,
    TokenizerOf,
)
from swiftcore.stages.evaluate import EVALUATE, benchmark_inputs
from swiftcore.stages.extend import EXTEND, is_extended
from swiftcore.stages.fold import FOLD, adapter_role
from swiftcore.stages.ingest import INGEST, ingest_sources
from swiftcore.stages.join import JOIN
from swiftcore.stages.merge import MERGE
from swiftcore.stages.quantize import QUANTIZE
from swiftcore.stages.resolve import resolve_reference
from swiftcore.stages.scratch import SCRATCH
from swiftcore.stages.template import TEMPLATE
from swiftcore.stages.train import TRAIN

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        *(INGEST, SCRATCH, FOLD, EXTEND, TEMPLATE, JOIN),
        *(TRAIN, MERGE, QUANTIZE, EVALUATE),
    )
}
_MAX_RECIPE_DEPTH = 8


@dataclass(frozen=True)
class Link:
    """An input that another step makes; `tokenizer_only` narrows it to the tokenizer's files."""

    step: "Step"
    tokenizer_only: bool = False


@dataclass(frozen=True)
class Step:
    """One stage of one recipe, with its inputs by role."""

    stage: Stage
    recipe: Recipe
    inputs: Mapping[str, Link | StageInput] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return `recipe/stage`, which is unique within a road."""
        return f"{self.recipe.name}/{self.stage.name}"

    def call(self, made: Mapping[str, Artifact]) -> StageCall | None:
        """Return the step with its inputs at hand; None while one of them is not made yet.

        Args:
            made: finished artifacts by step label.
        """
        inputs = self.resolve(made)
        return None if inputs is None else StageCall(self.stage, self.recipe, inputs)

    def resolve(self, made: Mapping[str, Artifact]) -> dict[str, StageInput] | None:
        """Return the inputs with links replaced by artifacts; None while one is missing."""
        resolved: dict[str, StageInput] = {}
        for role, value in self.inputs.items():
            if not isinstance(value, Link):
                resolved[role] = value
                continue
            artifact = made.get(value.step.label)
            if artifact is None:
                return None
            resolved[role] = TokenizerOf(artifact) if value.tokenizer_only else artifact
        return resolved


@dataclass(frozen=True)
class Road:
    """All steps of a recipe in the order they run, those of its base recipes first."""

    recipe: Recipe
    steps: tuple[Step, ...]

    def step(self, stage: str) -> Step:
        """Return the step of the recipe's own stage.

        Raises:
            RecipeError: the recipe has no such stage.
        """
        for step in self.steps:
            if step.label == f"{self.recipe.name}/{stage}":
                return step
        own = [step.stage.name for step in self.steps if step.recipe is self.recipe]
        raise RecipeError(
            f"The recipe has no {stage} stage.",
            where=self.recipe.name,
            found=f"stages {', '.join(own)}",
            expected=f"a section {stage}: in the recipe, or one of its stages",
            do=f"add `{stage}: {{}}` to the recipe to run it with its defaults",
        )

    def has(self, stage: str) -> bool:
        """Tell whether the recipe itself runs a stage."""
        return any(step.label == f"{self.recipe.name}/{stage}" for step in self.steps)

    def until(self, stage: str) -> tuple[Step, ...]:
        """Return the steps that a stage needs, itself last."""
        wanted = self.step(stage)
        needed = {wanted.label}
        for step in reversed(self.steps):
            if step.label in needed:
                needed |= {v.step.label for v in step.inputs.values() if isinstance(v, Link)}
        return tuple(step for step in self.steps if step.label in needed)

    def candidates(self) -> dict[str, str]:
        """Return the models that evaluation compares: candidate name -> stage that made it."""
        if self.has("merge"):
            found = {"adapter": "train", "merged": "merge"}
        else:
            found = {"trained" if self.recipe.tuner.train_type == "full" else "adapter": "train"}
        if self.has("quantize"):
            found["quantized"] = "quantize"
        return found


def build_road(loaded: LoadedRecipe, store: Store, *, _above: tuple[Path, ...] = ()) -> Road:
    """Lay out the steps of a recipe.

    Raises:
        RecipeError: recipes name each other in a circle, or sections don't fit together.
        DataError: a data file is missing.
        ModelMissing: the base model is not where the recipe says.
    """
    recipe = loaded.recipe
    _refuse_circle(loaded.path.resolve(), _above)
    steps: list[Step] = []
    ingest = Step(INGEST, recipe, ingest_sources(recipe.data))
    model = base_model(loaded, store, steps, _above)
    if recipe.model.frozen_adapters:
        assert model is not None
        steps.append(fold := Step(FOLD, recipe, {"model": model, **_frozen(loaded, store)}))
        model = Link(fold)
    trained_on: dict[str, StageInput] = {}
    if recipe.data.cached_dataset:
        _refuse_beside_cached(recipe)
        assert model is not None
        cached = cached_datasets(recipe, tokenizer_of(model), store)
        encoded: Link | StageInput = cached[0]
        if len(cached) > 1:
            parts = {f"encoded[{place}]": part for place, part in enumerate(cached)}
            steps.append(join := Step(JOIN, recipe, parts))
            encoded = Link(join)
        if recipe.evaluate is not None:
            steps.append(ingest)
            behind = [rows_behind(part, store) for part in cached]
            trained_on = {f"trained on[{place}]": rows for place, rows in enumerate(behind)}
    else:
        steps.append(ingest)
        if recipe.model.scratch is not None:
            scratch = Step(SCRATCH, recipe, _scratch_inputs(recipe, ingest))
            steps.append(scratch)
            model = Link(scratch)
        assert model is not None
        if is_extended(recipe.model):
            steps.append(extend := Step(EXTEND, recipe, {"model": model}))
            model = Link(extend)
        inputs = {"dataset": Link(ingest), "tokenizer": tokenizer_of(model)}
        template = Step(TEMPLATE, recipe, inputs)
        steps.append(template)
        encoded = Link(template)
    train = Step(
        TRAIN, recipe, {"encoded": encoded, "model": model, **adapter_input(loaded, store)}
    )
    steps.append(train)
    final = train
    if recipe.merge is not None:
        if recipe.tuner.train_type == "full":
            raise _misfit("merge", "tuner.train_type is full, so there is no adapter to merge")
        _refuse_unmergeable(recipe)
        inputs = {"model": model, "adapter": Link(train), "encoded": encoded}
        final = Step(MERGE, recipe, inputs)
        steps.append(final)
    if recipe.quantize is not None:
        if final is train and recipe.tuner.train_type != "full":
            raise _misfit("quantize", "an adapter is quantized after it is merged")
        inputs = {"model": Link(final), "encoded": encoded}
        steps.append(Step(QUANTIZE, recipe, inputs))
    road = Road(recipe, tuple(steps))
    if recipe.deploy is not None and recipe.evaluate is None:
        raise _misfit("deploy", "there is no evaluate section, so the gate has nothing to judge")
    if recipe.evaluate is not None:
        if not recipe.data.test_dataset and not recipe.evaluate.eval_dataset:
            raise _misfit("evaluate", "data.test_dataset names no held-out rows to answer")
        made = {name: Link(road.step(stage)) for name, stage in road.candidates().items()}
        benchmarks = benchmark_inputs(recipe.evaluate, loaded.runtime.eval_dataset_dir)
        inputs = {"dataset": Link(ingest), "encoded": encoded, "base": model, **made}
        inputs |= trained_on | benchmarks
        steps.append(Step(EVALUATE, recipe, inputs))
    return Road(recipe, tuple(steps))


def _refuse_unmergeable(recipe: Recipe) -> None:
    from swiftcore.tuners.kinds import KINDS

    name = recipe.tuner.train_type
    if not KINDS[name].merges:
        what = f"tuner.train_type {name} can't be folded into its base; serve both together, "
        raise _misfit("merge", what + "or train with a tuner that merges, such as lora")


def model_step(road: Road) -> Step:
    """Return the step whose artifact is the recipe's model: merged if there is one, else trained.

    Raises:
        RecipeError: the recipe ends with an adapter, which is no base model.
    """
    if road.has("merge"):
        return road.step("merge")
    if road.recipe.tuner.train_type != "full":
        raise RecipeError(
            "A recipe that is used as a base model ends with an adapter.",
            where=road.recipe.name,
            found=f"tuner.train_type {road.recipe.tuner.train_type} and no merge section",
            expected="a whole model",
            do="add `merge: {}` to that recipe, or name its base here and its adapter in "
            "model.adapters",
        )
    return road.step("train")


def base_model(
    loaded: LoadedRecipe,
    store: Store,
    steps: list[Step],
    above: tuple[Path, ...],
) -> Link | StageInput | None:
    """Return the model that the recipe starts from, None where it is built from scratch.

    Args:
        loaded: the recipe.
        store: where artifacts are looked up.
        steps: takes the steps of a base recipe.
        above: recipes that name this one as their base.

    Raises:
        ModelMissing: it is not where the recipe says.
        RecipeError: recipes name each other in a circle.
    """
    reference = loaded.recipe.model.model
    if reference is None:
        return None
    if reference.startswith("recipe:"):
        path = Path(reference.removeprefix("recipe:"))
        chain = (*above, loaded.path.resolve())
        _refuse_circle(path.resolve(), chain)
        road = build_road(load_recipe(path), store, _above=chain)
        if loaded.recipe.name in {step.recipe.name for step in road.steps}:
            raise _misfit("model", f"a base recipe has the same name, {loaded.recipe.name}")
        last = model_step(road)
        steps += road.until(last.stage.name)
        return Link(last)
    found = resolve_reference(reference, store)
    if not (found.path / "config.json").is_file():
        raise ModelMissing(
            "The base model is not where the recipe says.",
            where=f"{loaded.path}: model.model",
            found=f"{reference}: " + ("no config.json in it" if found.path.is_dir() else "nothing"),
            expected="a folder with config.json, model.safetensors and tokenizer files",
            do="give the folder of a downloaded model, or recipe:PATH to build one",
        )
    return found


def adapter_input(loaded: LoadedRecipe, store: Store) -> dict[str, StageInput]:
    """Return the adapter that training goes on with, by its role; nothing where it starts anew."""
    if not loaded.recipe.model.adapters:
        return {}
    (reference,) = loaded.recipe.model.adapters
    return {"adapter": _adapter_folder(reference, loaded.path, store)}


def _frozen(loaded: LoadedRecipe, store: Store) -> dict[str, StageInput]:
    """Return the adapters that the base is folded with, by their roles."""
    field = "model.frozen_adapters"
    return {
        adapter_role(place): _adapter_folder(reference, loaded.path, store, field)
        for place, reference in enumerate(loaded.recipe.model.frozen_adapters)
    }


def _adapter_folder(
    reference: str, path: Path, store: Store, field: str = "model.adapters"
) -> StageInput:
    if not reference.startswith("recipe:"):
        found = resolve_reference(reference, store)
        if (found.path / "adapter_config.json").is_file():
            return found
    raise ModelMissing(
        "The adapter is not where the recipe says.",
        where=f"{path}: {field}",
        found=reference,
        expected="a folder with adapter_config.json, artifact:FINGERPRINT or models:/name@alias",
        do="give what the train stage of another recipe made; swift status shows its fingerprint",
    )


def _scratch_inputs(recipe: Recipe, ingest: Step) -> dict[str, Link | StageInput]:
    spec = recipe.model.scratch
    assert spec is not None
    if spec.tokenizer is None:
        return {"dataset": Link(ingest)}
    folder = Path(spec.tokenizer)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.json.gz")):
        raise ModelMissing(
            "The tokenizer is not where the recipe says.",
            where="model.scratch.tokenizer",
            found=f"{folder}: no tokenizer.json",
            expected="a folder with tokenizer.json (or .gz) and tokenizer_config.json",
            do="give such a folder, or leave the field out to train a tokenizer on the dataset",
        )
    return {"tokenizer": Source(folder, f"tokenizer {folder.name}")}


def tokenizer_of(model: Link | StageInput) -> Link | StageInput:
    """Return the part of a model input that is its tokenizer."""
    if isinstance(model, Link):
        return Link(model.step, tokenizer_only=True)
    if isinstance(model, Artifact):
        return TokenizerOf(model)
    if isinstance(model, Source):
        return Source(model.path, f"tokenizer of {model.label}", only=TOKENIZER_FILES)
    return model


def _refuse_beside_cached(recipe: Recipe) -> None:
    if is_extended(recipe.model):
        raise _misfit("data.cached_dataset", "its rows were encoded for the model as it came")
    if recipe.model.scratch is not None:
        raise _misfit("data.cached_dataset", "model.scratch makes a new tokenizer from the rows")
    if recipe.data.val_dataset:
        raise _misfit("data.val_dataset", "the cached dataset has its own validation rows")
    if recipe.data.test_dataset and recipe.evaluate is None:
        raise _misfit("data.test_dataset", "beside a cached dataset only evaluate reads them")


def _refuse_circle(path: Path, above: tuple[Path, ...]) -> None:
    if path in above or len(above) >= _MAX_RECIPE_DEPTH:
        chain = " -> ".join(str(p) for p in (*above, path))
        raise RecipeError(
            "Recipes name each other as their base in a circle.",
            where=path,
            found=chain,
            expected=f"a chain of at most {_MAX_RECIPE_DEPTH} recipes that ends with a model",
            do="give one of them a model folder or a scratch model",
        )


def _misfit(section: str, reason: str) -> RecipeError:
    return RecipeError(
        "Sections of the recipe don't fit together.",
        where=section,
        found=reason,
        expected=f"a recipe where {section} has something to work on",
        do=f"remove the {section} section, or change the other one",
    )
