"""The steps of `swift export --quant_method`: quantize a model that is there, without training."""

from swiftcore.artifacts import Store
from swiftcore.errors import UsageError
from swiftcore.recipe import LoadedRecipe
from swiftcore.stages.graph import Link, Step, adapter_input, base_model, tokenizer_of
from swiftcore.stages.ingest import INGEST, ingest_sources
from swiftcore.stages.merge import MERGE
from swiftcore.stages.quantize import QUANTIZE
from swiftcore.stages.template import TEMPLATE


def export_steps(loaded: LoadedRecipe, store: Store) -> tuple[Step, ...]:
    """Return the steps that end with the quantized model.

    The recipe's rows calibrate the method and measure what it costs; with a merge section the
    adapter of the recipe is merged first.

    Raises:
        DataError: a data file is missing.
        ModelMissing: the model or the adapter is not where the recipe says.
        UsageError: there are adapters below the one to merge.
    """
    recipe = loaded.recipe
    if recipe.model.frozen_adapters:
        raise UsageError(
            "an export merges one adapter",
            where="frozen_adapters",
            found=", ".join(recipe.model.frozen_adapters),
            do="merge the adapters one after another with swift merge-lora, then quantize",
        )
    above: list[Step] = []
    model = base_model(loaded, store, above, ())
    assert model is not None
    ingest = Step(INGEST, recipe, ingest_sources(recipe.data))
    inputs = {"dataset": Link(ingest), "tokenizer": tokenizer_of(model)}
    template = Step(TEMPLATE, recipe, inputs)
    steps = [*above, ingest, template]
    if recipe.merge is not None:
        merged = {"model": model, **adapter_input(loaded, store), "encoded": Link(template)}
        steps.append(merge := Step(MERGE, recipe, merged))
        model = Link(merge)
    quantized = {"model": model, "encoded": Link(template)}
    return (*steps, Step(QUANTIZE, recipe, quantized))
