"""Ingest: sources become standard rows; every source row is kept, quarantined or counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Produced, section_config
from swiftcore.recipe import DataSection, Recipe
from swiftcore.stages.contract import Source, Stage, StageInput, StageRun

if TYPE_CHECKING:
    from swiftcore.data import SourceFile


_ROLES = ("dataset", "val_dataset", "test_dataset")
_CHUNK_TOKENIZER = "chunk tokenizer"
_PLACES = {*_ROLES, "cached_dataset", "custom_dataset_info", "custom_register_path"}


@dataclass(frozen=True)
class DataFile(Source):
    """A file of a dataset entry, with what was found out when the entry was resolved.

    Entries are resolved once, when the steps are laid out: a hub is asked once, and a Python file
    that registers datasets runs once.
    """

    file: "SourceFile" = field(kw_only=True)


def ingest_sources(section: DataSection) -> dict[str, Source]:
    """Return the files an ingest reads, by role; what is far away is fetched.

    Raises:
        DataError: a source is missing; names the nearest existing file.
        EnvironmentMissing: a source can't be reached from here.
    """
    from swiftcore.data import section_files
    from swiftcore.data.documents.tokens import tokenizer_file

    files: dict[str, Source] = {
        f"{file.role}[{index}]": DataFile(file.path, file.path.name, file=file)
        for index, file in enumerate(section_files(section, trace=False))
    }
    tokenizer = section.documents.tokenizer if section.documents else None
    if tokenizer is None:
        return files
    return files | {_CHUNK_TOKENIZER: Source(tokenizer_file(Path(tokenizer)), "chunk tokenizer")}


def _files(inputs: Mapping[str, StageInput]) -> "list[SourceFile]":
    return [source.file for source in inputs.values() if isinstance(source, DataFile)]


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
    config = section_config(recipe.data, exclude=_PLACES)
    if recipe.data.split_dataset_ratio > 0 and recipe.data.cleaning.contamination != "off":
        # Before rows that are split off were searched for too, such a recipe gave other rows.
        config["searched"] = "also rows split off"
    if recipe.data.documents is not None:
        # The tokenizer counts by its content, as an input.
        config["documents"] = section_config(recipe.data.documents, exclude={"tokenizer"})
    return {"data": config, "sources": sources}


def _input_config(inputs: Mapping[str, StageInput]) -> dict[str, Any]:
    """Return what registrations do to raw rows, entry by entry and subset, and the documents."""
    found: list[dict[str, Any]] = []
    last: SourceFile | None = None
    for file in _files(inputs):
        # Identity, not equality: the same entry may be listed twice, and subsets may be read alike.
        new = last is None or last.spec is not file.spec or last.options is not file.options
        if file.is_registered and new:
            options, function = file.options, file.options.preprocess
            told = {
                "columns": options.columns,
                "messages": options.messages,
                "preprocess": [function.name, function.sha256] if function else None,
            }
            names = {"column_names": list(options.column_names)} if options.column_names else {}
            found.append(told | names)
        last = file
    # What a document is, and what rows of code say of their place, hangs on its name.
    documents = {role: source.file.document for role, source in _documents(inputs)}
    told = {"registered": found} if found else {}
    return told | ({"documents": documents} if documents else {})


def _documents(inputs: Mapping[str, StageInput]) -> "list[tuple[str, DataFile]]":
    files = [(role, source) for role, source in inputs.items() if isinstance(source, DataFile)]
    return [(role, source) for role, source in files if source.file.document is not None]


def _suffixes(path: str) -> list[str]:
    name = path.replace("\\", "/").rsplit("/", 1)[-1].lower()
    return [f".{part}" for part in name.split(".")[1:][-2:]]


def _run(run: StageRun) -> Produced:
    from swiftcore.data import Pool, build_dataset
    from swiftcore.data.sources.local import traced

    report = build_dataset(
        run.recipe.data,
        run.area.out,
        files=traced(_files(run.given)),
        work_dir=run.area.work / "shards",
        pool=Pool(run.runtime.data_processes(), run.runtime.ray_address),
        progress=run.progress,
    )
    counts = {name: report.total(name) for name in ("rows", "quarantined", "duplicates")}
    counts |= report.splits
    facts = {"sources": report.provenance} if report.provenance else {}
    return Produced(metrics={name: float(count) for name, count in counts.items()}, facts=facts)


# Reports name the sources by path; the rows are what later stages are identified by.
INGEST = Stage(
    "ingest",
    2,
    _config,
    _run,
    measured=("report.json", "card.md", "card.html", "quarantine.jsonl"),
    input_config=_input_config,
)
