"""Ingest: sources become standard rows; every source row is kept, quarantined or counted."""

from typing import Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import DataSection, Recipe
from swiftcore.stages.contract import Source, Stage, StageRun


def ingest_sources(section: DataSection) -> dict[str, Source]:
    """Return the files an ingest reads, by role.

    Raises:
        DataError: a source is missing; names the nearest existing file.
    """
    from swiftcore.data import source_files

    found: dict[str, Source] = {}
    for index, file in enumerate(source_files(section)):
        found[f"{file.role}[{index}]"] = Source(file.path, file.path.name)
    return found


def _config(recipe: Recipe) -> dict[str, Any]:
    """Return the data section without its paths: content counts, and how it is read."""
    from swiftcore.data import parse_dataset_spec

    sources = {}
    for role in ("dataset", "val_dataset", "test_dataset"):
        specs = [parse_dataset_spec(text) for text in getattr(recipe.data, role)]
        sources[role] = [
            {
                "format": "".join(_suffixes(spec.path)),
                "subsets": list(spec.subsets or []),
                "sample": spec.sample,
            }
            for spec in specs
        ]
    return {"data": section_config(recipe.data, exclude=set(sources)), "sources": sources}


def _suffixes(path: str) -> list[str]:
    name = path.replace("\\", "/").rsplit("/", 1)[-1].lower()
    return [f".{part}" for part in name.split(".")[1:][-2:]]


def _run(run: StageRun) -> Produced:
    from swiftcore.data import Pool, build_dataset

    report = build_dataset(
        run.recipe.data,
        run.area.out,
        work_dir=run.area.work / "shards",
        pool=Pool(run.runtime.data_processes(), run.runtime.ray_address),
        progress=run.progress,
    )
    counts = {name: report.total(name) for name in ("rows", "quarantined", "duplicates")}
    counts |= report.splits
    return Produced(metrics={name: float(count) for name, count in counts.items()})


# Reports name the sources by path; the rows are what later stages are identified by.
INGEST = Stage(
    "ingest", 2, _config, _run, measured=("report.json", "card.md", "card.html", "quarantine.jsonl")
)
