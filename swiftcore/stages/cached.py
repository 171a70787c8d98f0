"""Datasets that were encoded before, used instead of raw rows.

Each is an artifact of the template stage in a folder of its own, as `swift stage template` and
`swift export --to_cached_dataset` write it. Its record holds the digests of the rows and of the
tokenizer's files and the template settings, so one that does not belong to the recipe is refused.
"""

from swiftcore.artifacts import Artifact, Store, folder_digest
from swiftcore.errors import DataError, UsageError
from swiftcore.recipe import Recipe
from swiftcore.stages.contract import Source, StageInput, TokenizerOf
from swiftcore.stages.ingest import INGEST
from swiftcore.stages.resolve import resolve_reference
from swiftcore.stages.template import TEMPLATE


def cached_datasets(recipe: Recipe, tokenizer: object, store: Store) -> list[Artifact]:
    """Return the verified artifacts that `data.cached_dataset` names.

    Args:
        recipe: whose template settings and method must be those it was encoded with.
        tokenizer: of the base model; one that another step has yet to make can't be compared.
        store: where `artifact:` references are looked up.

    Raises:
        DataError: a folder is no encoded dataset.
        UsageError: it was encoded with another tokenizer, template or version, or is named twice.
        ArtifactDamaged: its files are not what was written.
    """
    found: dict[str, str] = {}
    artifacts = []
    for reference in recipe.data.cached_dataset:
        artifact = _checked(reference, recipe, tokenizer, store)
        if artifact.fingerprint in found:
            raise UsageError(
                "a cached dataset is named twice",
                where=f"data.cached_dataset: {reference}",
                found=f"the rows of {found[artifact.fingerprint]}",
                do="name each encoded dataset once",
            )
        found[artifact.fingerprint] = reference
        artifacts.append(artifact)
    return artifacts


def rows_behind(cached: Artifact, store: Store) -> Artifact:
    """Return the rows that a cached dataset was encoded from, which evaluation compares with.

    Raises:
        DataError: they are not in this store.
    """
    ref = cached.record.inputs["dataset"]
    found = store.lookup(INGEST.name, ref.fingerprint or "")
    if found.artifact is None or found.artifact.digest != ref.digest:
        raise DataError(
            "the rows that the cached dataset was encoded from are not here",
            where="data.cached_dataset and evaluate",
            found=found.problem or f"no artifact {(ref.fingerprint or '')[:12]} in {store.root}",
            expected="the training rows' text, which evaluate compares its rows with",
            do="work with the store they were encoded in, bring them with swift pull, or remove "
            "evaluate",
        )
    return found.artifact


def _checked(reference: str, recipe: Recipe, tokenizer: object, store: Store) -> Artifact:
    found = resolve_reference(reference, store)
    if not isinstance(found, Artifact) or found.record.stage != TEMPLATE.name:
        raise DataError(
            "the cached dataset is no encoded dataset",
            where=f"data.cached_dataset: {reference}",
            found=found.record.stage if isinstance(found, Artifact) else "a folder without record",
            expected="a folder that swift export --to_cached_dataset wrote",
            do="encode the dataset again, or give the raw rows in data.dataset",
        )
    _require_same_making(found, recipe, reference)
    _require_same_tokenizer(found, tokenizer, store, reference)
    return found


def _require_same_making(found: Artifact, recipe: Recipe, reference: str) -> None:
    record, wanted = found.record, TEMPLATE.config(recipe)
    if record.version != TEMPLATE.version:
        raise _stale(reference, f"version {record.version}", f"version {TEMPLATE.version}")
    if record.config != wanted:
        raise _stale(reference, str(record.config), str(wanted))


def _require_same_tokenizer(
    found: Artifact, tokenizer: object, store: Store, reference: str
) -> None:
    if not isinstance(tokenizer, StageInput):
        raise UsageError(
            "a cached dataset needs a base model that is there",
            where=f"data.cached_dataset: {reference}",
            found="a model that another recipe has yet to make",
            expected="a folder, models:/name@alias or artifact:FINGERPRINT in model.model",
            do="run the base recipe first and name its artifact, or give data.dataset",
        )
    used, now = found.record.inputs["tokenizer"].digest, _digest(tokenizer, store)
    if used != now:
        raise _stale(reference, f"tokenizer files {used[:12]}", f"tokenizer files {now[:12]}")


def _digest(tokenizer: StageInput, store: Store) -> str:
    if isinstance(tokenizer, Source | TokenizerOf):
        return tokenizer.ref(store.digests).digest
    return folder_digest(tokenizer.path, store.digests)


def _stale(reference: str, found: str, expected: str) -> UsageError:
    return UsageError(
        "the cached dataset was encoded in another way than the recipe asks for",
        where=f"data.cached_dataset: {reference}",
        found=found,
        expected=expected,
        do="encode it again with swift export --to_cached_dataset, or give the raw rows",
    )
