"""Datasets that the user gives a name: by JSON files (`custom_dataset_info`) or Python files.

A JSON file holds a list of objects: a place (`path`, `hf_dataset_id`, `ms_dataset_id`), and how
its rows are read (`columns`, `messages`, `subsets`, `split`). A Python file calls
`register_dataset`; it runs code, so it is loaded only when the recipe names it, and the sha256 of
what ran is recorded. Keys are those of ms-swift.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from hashlib import sha256 as sha256_of
from pathlib import Path
from types import ModuleType
from typing import Literal

from swiftcore.data.sources.registration import RegisteredDataset, Subset, dataset_of
from swiftcore.data.sources.row_options import FunctionInFile, Preprocess, run_file
from swiftcore.data.sources.spec import DatasetSpec
from swiftcore.errors import UsageError


class Registry:
    """The registered datasets of one recipe."""

    def __init__(self) -> None:
        self._by_name: dict[str, RegisteredDataset] = {}

    def add(self, dataset: RegisteredDataset) -> None:
        """Take a dataset in.

        Raises:
            UsageError: the name is taken.
        """
        if dataset.name in self._by_name:
            raise UsageError(
                "a dataset is registered twice",
                where=dataset.origin.get("registered_by"),
                found=dataset.name,
                do="give one of them another name",
            )
        self._by_name[dataset.name] = dataset

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._by_name)

    def resolve(self, spec: DatasetSpec) -> list[tuple[DatasetSpec, RegisteredDataset]]:
        """Return what an entry stands for, one pair for each subset; nothing if it is no name.

        Raises:
            UsageError: it has no such subset, or several of which one must be named.
        """
        found = self._find(spec)
        if found is None:
            return []
        place, hub = _place(found, spec)
        base = replace(spec, path=place, hub=hub, prefix=hub, subsets=[])
        if not found.subsets:
            return [(replace(base, subsets=spec.subsets), found)]
        pairs = []
        for subset in _chosen(found, spec):
            columns = subset.columns | found.options.columns
            options = replace(found.options, columns=columns)
            named = [] if subset.name == "default" else [subset.name]
            pairs.append((replace(base, subsets=named), replace(found, options=options)))
        return pairs

    def _find(self, spec: DatasetSpec) -> RegisteredDataset | None:
        if spec.hub is None and spec.path in self._by_name:
            return self._by_name[spec.path]
        for dataset in self._by_name.values():
            ids = {"hf": dataset.hf_dataset_id, "ms": dataset.ms_dataset_id}
            if spec.hub is not None and ids[spec.hub] == spec.path:
                return dataset
            if spec.hub is None and spec.path in (dataset.path, *ids.values()):
                return dataset
        return None


_loading: ContextVar[tuple[Registry, Path] | None] = ContextVar("loading", default=None)


def register_dataset(
    name: str | None = None,
    *,
    path: str | None = None,
    hf_dataset_id: str | None = None,
    ms_dataset_id: str | None = None,
    columns: Mapping[str, str] | None = None,
    column_names: Sequence[str] = (),
    messages: Mapping[str, object] | None = None,
    subsets: Sequence[str | Mapping[str, object]] = (),
    split: Sequence[str] = (),
    preprocess: Preprocess | None = None,
) -> None:
    """Register a dataset from a Python file that the recipe names in `custom_register_path`.

    Args:
        name: what recipes call it; default: its id or path.
        path: local path, relative to the Python file, or an address.
        hf_dataset_id: `org/name` on Hugging Face.
        ms_dataset_id: `org/name` on ModelScope.
        columns: `{source name: standard name}`.
        column_names: names of the columns of csv and tsv files without a header line.
        messages: keys of its messages, see `RowOptions`.
        subsets: names, or objects with name and columns.
        split: splits of a hub dataset to take.
        preprocess: top-level function of the file that turns a raw row into one of the formats
            that are read; None sets the row aside.

    Raises:
        UsageError: called outside such a file, or with a wrong value.
    """
    loading = _loading.get()
    if loading is None:
        raise UsageError(
            "register_dataset is for files that a recipe names",
            where=name,
            do="name the file in custom_register_path",
        )
    registry, file = loading
    facts: dict[str, object] = {"name": name, "path": path}
    facts |= {"hf_dataset_id": hf_dataset_id, "ms_dataset_id": ms_dataset_id}
    facts |= {"columns": columns, "messages": messages, "split": list(split)}
    facts |= {"subsets": list(subsets), "column_names": list(column_names)}
    dataset = dataset_of({k: v for k, v in facts.items() if v}, file, str(file))
    if preprocess is not None:
        function = _named_function(preprocess, file, str(file))
        dataset = replace(dataset, options=replace(dataset.options, preprocess=function))
    registry.add(dataset)


def load_registered(
    custom_dataset_info: Sequence[str] = (), custom_register_path: Sequence[str] = ()
) -> Registry:
    """Read the JSON files and run the Python files that a recipe names, in this order.

    Raises:
        UsageError: a file can't be read, fails, or registers something that has no meaning.
    """
    registry = Registry()
    for name in custom_dataset_info:
        for dataset in _from_json(Path(name).expanduser(), name):
            registry.add(dataset)
    for name in custom_register_path:
        _run_into(registry, Path(name).expanduser(), name)
    return registry


def rerun(place: FunctionInFile) -> ModuleType:
    """Run a registered file again in another process, if it is still the same.

    Raises:
        UsageError: its content changed.
    """
    current = sha256_of(place.path.read_bytes()).hexdigest() if place.path.is_file() else "nothing"
    if current != place.sha256:
        raise UsageError(
            "a file that registers datasets changed while it was in use",
            where=place.path,
            found=f"sha256 {current}",
            expected=f"sha256 {place.sha256}",
            do="run the command again",
        )
    return _run_into(Registry(), place.path, str(place.path))


def _run_into(registry: Registry, file: Path, where: str) -> ModuleType:
    if file.suffix != ".py":
        raise UsageError(
            "this is no Python file",
            where=f"custom_register_path: {where}",
            expected="a .py file",
            do="JSON files belong into custom_dataset_info",
        )
    with _adding_to(registry, file):
        return run_file(file, where)[0]


@contextlib.contextmanager
def _adding_to(registry: Registry, file: Path) -> Iterator[None]:
    token = _loading.set((registry, file.absolute()))
    try:
        yield
    finally:
        _loading.reset(token)


def _from_json(file: Path, where: str) -> list[RegisteredDataset]:
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(
            "a file of registered datasets can't be read", where=where, found=err.strerror
        ) from err
    except (ValueError, RecursionError) as err:
        raise UsageError(
            "a file of registered datasets is no JSON", where=where, found=err
        ) from err
    items = [items] if isinstance(items, dict) else items
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError(
            "a file of registered datasets holds something else",
            where=where,
            expected="a list of objects",
        )
    return [
        dataset_of(item, file.absolute(), f"{where}[{index}]") for index, item in enumerate(items)
    ]


def _named_function(preprocess: Preprocess, file: Path, where: str) -> FunctionInFile:
    name = getattr(preprocess, "__qualname__", "")
    if not name.isidentifier():
        raise UsageError(
            "preprocess is no function that another process could find",
            where=where,
            found=name or repr(preprocess),
            expected="a function defined at the top level of the file",
        )
    return FunctionInFile(file, sha256_of(file.read_bytes()).hexdigest(), name)


def _place(dataset: RegisteredDataset, spec: DatasetSpec) -> tuple[str, Literal["hf", "ms"] | None]:
    """Return where a dataset is: the hub the entry names, else the path, else the first hub."""
    if spec.hub == "hf" and dataset.hf_dataset_id:
        return dataset.hf_dataset_id, "hf"
    if spec.hub == "ms" and dataset.ms_dataset_id:
        return dataset.ms_dataset_id, "ms"
    if dataset.path is not None:
        return dataset.path, None
    if dataset.hf_dataset_id is not None:
        return dataset.hf_dataset_id, "hf"
    assert dataset.ms_dataset_id is not None, "a registered dataset has a place"
    return dataset.ms_dataset_id, "ms"


def _chosen(dataset: RegisteredDataset, spec: DatasetSpec) -> list[Subset]:
    """Return the subsets an entry asks for: one, the default, all that are not weak, or by name."""
    by_name = {subset.name: subset for subset in dataset.subsets}
    if not spec.subsets:
        if len(by_name) == 1 or "default" in by_name:
            return [by_name.get("default", dataset.subsets[0])]
    elif spec.subsets == ["all"] and "all" not in by_name:
        return [subset for subset in dataset.subsets if not subset.is_weak]
    elif all(name in by_name for name in spec.subsets):
        return [by_name[name] for name in spec.subsets]
    raise UsageError(
        "the registered dataset has no such subset"
        if spec.subsets
        else "the registered dataset has several subsets, and one must be named",
        where=repr(spec.text),
        found="/".join(spec.subsets) or None,
        expected="one of " + ", ".join(sorted(by_name)) + ", or all",
        do=f"write {dataset.name}:{dataset.subsets[0].name}",
    )
