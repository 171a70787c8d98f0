"""Ingest: sources become standard rows; every source row is kept, quarantined or counted."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.errors import TransientError
from swiftcore.recipe import DataSection, Recipe
from swiftcore.stages.contract import Source, Stage, StageRun

if TYPE_CHECKING:
    from swiftcore.data import SourceFile


_ROLES = ("dataset", "val_dataset", "test_dataset")
_PLACES = {*_ROLES, "cached_dataset", "custom_dataset_info", "custom_register_path"}


def ingest_sources(section: DataSection) -> dict[str, Source]:
    """Return the files an ingest reads, by role; what is far away is fetched.

    Raises:
        DataError: a source is missing; names the nearest existing file.
        EnvironmentMissing: a source can't be reached from here.
    """
    from swiftcore.data import section_files

    return {
        _input_name(index, file): Source(file.path, file.path.name)
        for index, file in enumerate(section_files(section, trace=False))
    }


def _input_name(index: int, file: "SourceFile") -> str:
    return f"{file.role}[{index}]"


def _config(recipe: Recipe) -> dict[str, Any]:
    """Return the data section without its paths: content counts, and how it is read."""
    from swiftcore.data import parse_dataset_spec

    sources = {}
    for role in _ROLES:
        specs = [parse_dataset_spec(text) for text in getattr(recipe.data, role)]
        sources[role] = [
            {
                "format": "".join(_suffixes(spec.path)),
                "subsets": list(spec.subsets or []),
                "sample": spec.sample,
            }
            for spec in specs
        ]
    config = {"data": section_config(recipe.data, exclude=_PLACES), "sources": sources}
    registered = _registered(recipe.data)
    return config | ({"registered": registered} if registered else {})


def _registered(section: DataSection) -> list[dict[str, Any]]:
    """Return what registrations do to raw rows, entry by entry."""
    from swiftcore.data.sources.registered import load_registered
    from swiftcore.data.sources.spec import parse_dataset_spec

    if not section.custom_dataset_info and not section.custom_register_path:
        return []
    registry = load_registered(section.custom_dataset_info, section.custom_register_path)
    found = []
    for text in (entry for role in _ROLES for entry in getattr(section, role)):
        for _, dataset in registry.resolve(parse_dataset_spec(text)):
            options, function = dataset.options, dataset.options.preprocess
            found.append(
                {
                    "columns": options.columns,
                    "messages": options.messages,
                    "preprocess": [function.name, function.sha256] if function else None,
                }
            )
    return found


def _suffixes(path: str) -> list[str]:
    name = path.replace("\\", "/").rsplit("/", 1)[-1].lower()
    return [f".{part}" for part in name.split(".")[1:][-2:]]


def _run(run: StageRun) -> Produced:
    from swiftcore.data import Pool, build_dataset

    report = build_dataset(
        run.recipe.data,
        run.area.out,
        files=_planned_files(run),
        work_dir=run.area.work / "shards",
        pool=Pool(run.runtime.data_processes(), run.runtime.ray_address),
        progress=run.progress,
    )
    counts = {name: report.total(name) for name in ("rows", "quarantined", "duplicates")}
    counts |= report.splits
    facts = {"sources": report.provenance} if report.provenance else {}
    return Produced(metrics={name: float(count) for name, count in counts.items()}, facts=facts)


def _planned_files(run: StageRun) -> "list[SourceFile]":
    """Return the files whose content is in the fingerprint, with what is known of their origin."""
    from swiftcore.data import section_files

    files = section_files(run.recipe.data)
    names = [_input_name(index, file) for index, file in enumerate(files)]
    if set(names) != set(run.inputs):
        raise TransientError(
            "the sources changed while the run began",
            where="data.dataset",
            found=f"{len(names)} files",
            expected=f"the {len(run.inputs)} files that were planned",
            do="run again",
        )
    return [replace(file, path=run.inputs[name]) for name, file in zip(names, files, strict=True)]


# Reports name the sources by path; the rows are what later stages are identified by.
INGEST = Stage(
    "ingest", 2, _config, _run, measured=("report.json", "card.md", "card.html", "quarantine.jsonl")
)
