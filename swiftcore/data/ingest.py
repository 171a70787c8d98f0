"""From source files to a dataset folder, with the fate of every row accounted for.

First half, chunk by chunk and in as many processes as there are: read, normalise, quarantine what
has no standard form, keep the rest in shards on disk. Second half, on the rows' digests alone: drop
exact copies within a role; choose the evaluated rows (test, then val); drop training rows equal to
one of them, so evaluation stays uncontaminated; sample and split each training source; join, mix
and shuffle. Then the splits are gathered from the shards. Memory holds a few shards and some 150
bytes a row, however long the rows are.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.data.card import render_card
from swiftcore.data.card_samples import NUM_SAMPLES
from swiftcore.data.cleaning.contamination import ContaminationIndex
from swiftcore.data.columns import joined_kinds
from swiftcore.data.dataset import SplitRows, write_split
from swiftcore.data.documents.pool import default_workers
from swiftcore.data.documents.staging import Document, Stager
from swiftcore.data.ingest_checks import (
    are_tables,
    bad_row,
    check_files,
    check_section,
    too_many_bad,
)
from swiftcore.data.pool import Pool
from swiftcore.data.preparation import (
    CONTAMINATED,
    ColumnNews,
    Preparation,
    RowNews,
    check_cleaning,
    write_index,
)
from swiftcore.data.quarantine import QUARANTINED, QuarantineFile, quarantine_line
from swiftcore.data.readers.chunks import FileChunk, file_chunks
from swiftcore.data.report import FATES, IngestReport, SourceCounts
from swiftcore.data.shards import Shard, ShardedRows, ShardTask, prepare_chunk
from swiftcore.data.sources.folders import files_left_out
from swiftcore.data.sources.local import SourceFile, source_files
from swiftcore.data.sources.registered import load_registered
from swiftcore.data.split_off import shared_with_split_off
from swiftcore.data.splits import Selection, Source, content_numbers
from swiftcore.errors import DataError, UsageError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe.sections import DataSection, DocumentsSection

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 8 * 2**20
_NUM_REASONS = 20


def build_dataset(
    section: DataSection,
    out_dir: Path,
    *,
    files: Sequence[SourceFile] | None = None,
    work_dir: Path | None = None,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Write `train.parquet`, `val.parquet`, `test.parquet`, the quarantine, report and card.

    The same section and the same bytes in the sources make the same bytes in the parquet files,
    however many processes work.

    Args:
        section: the recipe's data section.
        out_dir: folder for the dataset.
        files: the sources; default: what the section's entries stand for now.
        work_dir: folder for the shards, about as large as the sources; removed afterwards.
            Default: one inside `out_dir`.
        pool: who prepares the chunks; default: this process.
        progress: told how far the work is.

    Raises:
        DataError: a source is missing, empty or damaged, too many rows are bad, or no training
            row is left. `quarantine.jsonl` is complete in `out_dir` whenever rows were read.
        UsageError: entries or settings that have no meaning.
        EnvironmentMissing: an entry names a source that can't be reached here.
    """
    check_section(section)
    check_cleaning(section)
    files = section_files(section, progress=progress) if files is None else files
    check_files(section, files)
    out_dir.mkdir(parents=True, exist_ok=True)
    work_dir = work_dir or out_dir / ".shards"
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    try:
        ingest = _Ingest(section, files, out_dir, work_dir, pool or Pool(), progress or Silent())
        return ingest.run()
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def section_files(
    section: DataSection, *, trace: bool = True, progress: Progress | None = None
) -> list[SourceFile]:
    """Return the files that a section's entries stand for, registered names included.

    Raises:
        SwiftError: as `source_files` and `load_registered`.
    """
    registry = load_registered(section.custom_dataset_info, section.custom_register_path)
    return source_files(section, registry=registry, trace=trace, progress=progress)


class _Ingest:
    """One ingest under way."""

    def __init__(
        self,
        section: DataSection,
        files: Sequence[SourceFile],
        out_dir: Path,
        work_dir: Path,
        pool: Pool,
        progress: Progress,
    ) -> None:
        self._section = section
        self._out_dir = out_dir
        self._work_dir = work_dir
        self._pool = pool
        self._progress = progress
        self._files = files
        self._sources, self._source_of = _sources(self._files)
        self._news = RowNews()
        self._bytes_done = 0
        self._document_notes: list[str] = []
        self._quarantine = QuarantineFile(out_dir / "quarantine.jsonl")

    def run(self) -> IngestReport:
        import numpy as np

        with self._quarantine:
            shards = self._read_all()
            self._number_rows(shards)
            self._check_columns()
            self._check_quarantine()
            rows = ShardedRows(shards, joined_kinds(shard.kinds for shard in shards))
            splits = self._chosen(shards, rows)
        wanted = self._section.dataset and self._section.split_dataset_ratio < 1
        if wanted and not len(splits["train"]):
            raise self._nothing_to_train_on()
        sizes = np.frombuffer(b"".join(shard.sizes.tobytes() for shard in shards), dtype=np.int64)
        answered = np.frombuffer(b"".join(shard.answered for shard in shards), dtype=bool)
        report = self._report(splits, answered)
        report.check()
        columns = Counter[str]()
        for split in report.splits:
            columns += write_split(rows, splits[split], sizes, self._out_dir / f"{split}.parquet")
        report.columns = dict(sorted(columns.items()))
        self._write(report)
        total = report.total("rows")
        self._progress.update(total, total, _summary(report))
        return report

    def _read_all(self) -> list[Shard]:
        """Prepare every chunk of every file; return all shards in reading order."""
        tasks = self._tasks()
        total = sum(task.chunk.num_bytes for task in tasks)
        made: dict[int, list[Shard]] = {}
        # Evaluated rows come first: training rows may have to be compared with them.
        evaluated = [task for task in tasks if self._role(task) != "train"]
        trained = [task for task in tasks if self._role(task) == "train"]
        self._run_tasks(evaluated, total, made)
        index = self._contamination_index(evaluated, made)
        if index is not None and trained:
            compared = replace(trained[0].preparation, contamination_index=index)
            trained = [replace(task, preparation=compared) for task in trained]
        self._run_tasks(trained, total, made)
        return [shard for task in tasks for shard in made[task.number]]

    def _role(self, task: ShardTask) -> str:
        return self._files[task.source].role

    def _tasks(self) -> list[ShardTask]:
        near = self._section.cleaning.near_duplicates
        preparation = Preparation(self._section, signatures=near is not None)
        staged = self._staged()
        chunks = [
            (number, chunk)
            for number, file in enumerate(self._files)
            for chunk in staged.get(number) or file_chunks(file.path, file.name, CHUNK_BYTES)
        ]
        return [
            ShardTask(
                chunk, source, self._work_dir, number, preparation, self._files[source].options
            )
            for number, (source, chunk) in enumerate(chunks)
        ]

    def _staged(self) -> dict[int, list[FileChunk]]:
        """Read the documents among the files; return their chunks by the place of the file."""
        places = [place for place, file in enumerate(self._files) if file.document]
        documents = [
            Document(file.path, file.name, file.document) for file in self._files if file.document
        ]
        by_ray = self._pool.ray_address is not None
        workers = default_workers() if by_ray else self._pool.processes
        section = self._section.documents or DocumentsSection()
        stager = Stager(section, self._work_dir / "documents", workers)
        chunks: dict[int, list[FileChunk]] = {}
        for place, found in zip(places, stager.stage(documents, self._progress), strict=True):
            name = self._files[place].name
            if found.problem is not None:
                chunks[place] = [FileChunk(found.path, name, problem=found.problem)]
            else:
                chunks[place] = file_chunks(found.path, name, CHUNK_BYTES)
            self._document_notes += found.notes
        return chunks

    def _run_tasks(
        self, tasks: Sequence[ShardTask], total: int, made: dict[int, list[Shard]]
    ) -> None:
        for task, shards in zip(tasks, self._prepared(tasks), strict=True):
            made[task.number] = shards
            counts = self._source_of[task.source].counts
            for shard in shards:
                counts.add_rows(shard.num_rows, shard.fates)
                self._quarantine.add(shard.quarantine, shard.dropped)
                bad = [(reason, at) for fate, reason, at in shard.dropped if fate == QUARANTINED]
                shard.quarantine.clear()
                shard.dropped.clear()
                if shard.news is not None:
                    self._news.add(shard.news)
                    shard.news = None
                if self._section.strict and bad:
                    raise bad_row(*bad[0])
            self._bytes_done += task.chunk.num_bytes
            rows = sum(source.counts.rows for source in self._sources)
            self._progress.update(self._bytes_done, total + 1, f"{rows:,} rows read")

    def _prepared(self, tasks: Sequence[ShardTask]) -> Iterator[list[Shard]]:
        size = sum(task.chunk.num_bytes for task in tasks)
        if (len(tasks) > 1 and size > CHUNK_BYTES) or self._pool.ray_address is not None:
            return self._pool.map(prepare_chunk, tasks)
        # Little is done before other processes have started, and a single chunk (a large .gz, say)
        # can tell here how far it is.
        return (prepare_chunk(task, self._tell_rows) for task in tasks)

    def _contamination_index(
        self, evaluated: Sequence[ShardTask], made: dict[int, list[Shard]]
    ) -> Path | None:
        """Index the evaluated rows in a file that every worker can read."""
        cleaning = self._section.cleaning
        shards = [shard for task in evaluated for shard in made[task.number]]
        if cleaning.contamination == "off" or not any(shard.num_good for shard in shards):
            return None
        rows = ShardedRows(shards, joined_kinds(shard.kinds for shard in shards))
        index = ContaminationIndex.from_rows(rows.messages(), cleaning.contamination_ngram)
        return write_index(index, self._work_dir)

    def _number_rows(self, shards: Sequence[Shard]) -> None:
        """Tell each source the places of its good rows."""
        import numpy as np

        places: dict[int, list[np.ndarray]] = {}
        start = 0
        for shard in shards:
            of_shard = np.arange(start, start + shard.num_good, dtype=np.int64)
            places.setdefault(id(self._source_of[shard.source]), []).append(of_shard)
            start += shard.num_good
        for source in self._sources:
            found = places.get(id(source), [])
            source.rows = np.concatenate([np.empty(0, dtype=np.int64), *found])

    def _chosen(self, shards: Sequence[Shard], rows: ShardedRows) -> "dict[str, np.ndarray]":
        near = self._section.cleaning.near_duplicates is not None
        signatures = rows.signatures(self._work_dir / "all.minhash") if near else None
        contents = content_numbers(b"".join(shard.digests for shard in shards))
        compared = self._section.cleaning.contamination != "off"

        def leaking(train: "np.ndarray", split_off: "np.ndarray") -> "np.ndarray":
            return self._leaking(rows, train, split_off)

        selection = Selection(
            self._sources, contents, self._section, signatures, leaking if compared else None
        )
        splits = selection.splits()
        for dropped, kept in rows.pairs(selection.near_duplicates):
            reason = "the row nearly equals an earlier one"
            place = f"{self._files[dropped.source].name}:{dropped.line}"
            like = {"like": f"{self._files[kept.source].name}:{kept.line}", "row": dropped.columns}
            name = self._files[dropped.source].name
            line = quarantine_line(name, dropped.line, reason, like, True)
            self._quarantine.add([line], [("near_duplicates", reason, place)])
        return splits

    def _leaking(
        self, rows: ShardedRows, train: "np.ndarray", split_off: "np.ndarray"
    ) -> "np.ndarray":
        """Return the places of training rows to drop: those with text of rows split off."""
        import numpy as np

        cleaning = self._section.cleaning
        found = shared_with_split_off(
            rows, train, split_off, cleaning.contamination_ngram, self._work_dir, self._pool
        )
        dropped: list[int] = []
        for place, match in found:
            self._news.contamination.by_kind[f"{match.kind}, split off"] += 1
            if cleaning.contamination == "drop":
                dropped.append(place)
                ((row, _),) = rows.pairs([(place, place)])
                name = self._files[row.source].name
                reason = f"{match.reason()} that was split off"
                line = quarantine_line(name, row.line, reason, row.columns, True)
                self._quarantine.add([line], [(CONTAMINATED, reason, f"{name}:{row.line}")])
        return np.asarray(dropped, dtype=np.int64)

    def _tell_rows(self, rows: int) -> None:
        self._progress.update(rows, None, f"{rows:,} rows read")

    def _check_columns(self) -> None:
        columns = self._news.columns
        wanted = {name.lower() for name in self._section.columns or {}}
        missing = sorted(wanted - columns.renamed)
        if missing:
            raise UsageError(
                "data.columns renames a column that no row has",
                where="data.columns",
                found=", ".join(missing),
                expected="a column of the sources: " + ", ".join(sorted(columns.seen)[:20]),
                do="correct the name, or remove it",
            )

    def _check_quarantine(self) -> None:
        total, bad = Counter[str](), Counter[str]()
        for source in self._sources:
            counts = source.counts
            total[counts.role] += counts.rows
            bad[counts.role] += counts.quarantined
            if counts.quarantined == counts.rows:
                problem = f"all {counts.rows:,} rows are bad"
                raise too_many_bad(
                    counts.entry, problem, self._quarantine, tables=are_tables(source.files)
                )
        max_share = self._section.max_quarantine_ratio
        for role, rows in total.items():
            if bad[role] > max_share * rows:
                problem = f"{bad[role]:,} of {rows:,} {role} rows are bad ({bad[role] / rows:.1%})"
                raise too_many_bad(f"{role} rows", problem, self._quarantine, max_share)

    def _nothing_to_train_on(self) -> DataError:
        counts = [source.counts for source in self._sources if source.counts.role == "train"]
        fates = {fate: sum(getattr(each, fate) for each in counts) for fate in FATES}
        return DataError(
            "no training row is left",
            where=", ".join(self._section.dataset),
            found=", ".join(
                f"{rows:,} {fate.replace('_', ' ')}" for fate, rows in fates.items() if rows
            ),
            do="give training rows that are not in val_dataset or test_dataset, or widen the "
            "limits of data.cleaning",
        )

    def _report(self, splits: "dict[str, np.ndarray]", answered: "np.ndarray") -> IngestReport:
        needed = "train" if self._section.dataset else "test"
        written = {split: rows for split, rows in splits.items() if len(rows) or split == needed}
        columns = self._news.columns
        return IngestReport(
            splits={split: len(rows) for split, rows in written.items()},
            sources=[source.counts for source in self._sources],
            files=[file.name for file in self._files],
            unused_columns=dict(sorted(columns.unused.items())),
            quarantine_reasons=dict(self._quarantine.reasons.most_common(_NUM_REASONS)),
            findings=dict(self._news.findings.rows.most_common()),
            contamination=dict(self._news.contamination.by_kind.most_common()),
            provenance={file.name: file.provenance for file in self._files if file.provenance},
            licence=self._section.licence,
            notes=[
                *_notes(self._sources, columns),
                *self._document_notes,
                *(_left_out(self._files) if self._section.documents else ()),
                *_answerless({split: answered[rows] for split, rows in written.items()}),
            ],
        )

    def _write(self, report: IngestReport) -> None:
        """Write the report, the statistics and the card."""
        report.write(self._out_dir)
        statistics = self._news.statistics
        _write_text(self._out_dir / "statistics.json", statistics.to_json() + "\n")
        shown = SplitRows(self._out_dir, "train" if self._section.dataset else "test")
        step = max(len(shown) // NUM_SAMPLES, 1)
        samples = shown.take(range(0, len(shown), step)[:NUM_SAMPLES])
        note = (
            f"Lengths, roles, tools and languages are those of all {statistics.rows:,} good rows, "
            "before duplicates and sampling."
        )
        told = report.as_dict()
        told["secrets_and_personal_data"] = told.pop("findings")
        told["evaluated_text_in_training_rows"] = told.pop("contamination")
        card = render_card(told, statistics.as_dict(), samples, [note], self._section.licence)
        _write_text(self._out_dir / "card.html", card)


def _sources(files: Sequence[SourceFile]) -> tuple[list[Source], list[Source]]:
    """Return one source for each entry of the recipe, and for each file the source it is of."""
    import numpy as np

    sources: list[Source] = []
    of_file: list[Source] = []
    for file in files:
        last = sources[-1] if sources else None
        # Identity, not equality: the same entry may be listed twice.
        if last is None or last.files[0].spec is not file.spec:
            nothing = np.empty(0, dtype=np.int64)
            last = Source([], SourceCounts(file.spec.text, file.role, []), nothing)
            sources.append(last)
        last.files.append(file)
        last.counts.files.append(file.name)
        of_file.append(last)
    return sources, of_file


def _notes(sources: Sequence[Source], columns: ColumnNews) -> Iterator[str]:
    for target, names in sorted(columns.clashes.items()):
        yield (
            f"Columns {', '.join(names)} could each be the {target}, so none was taken for it; "
            "say which with data.columns."
        )
    for note, rows in sorted(columns.notes.items()):
        yield f"{note} ({rows:,} rows)."
    for source in sources:
        counts = source.counts
        if counts.held_out:
            yield (
                f"{counts.held_out:,} rows of {counts.entry} equal evaluated rows; they were "
                f"dropped from {counts.role}."
            )
        if not counts.used:
            yield f"{counts.entry} gives no row: all of them are duplicates or evaluated rows."


def _left_out(files: Sequence[SourceFile]) -> Iterator[str]:
    folders = {file.spec.path: file.spec for file in files if not file.spec.subsets}
    for path, spec in folders.items():
        folder = Path(path).expanduser()
        if spec.is_local and folder.is_dir():
            endings = files_left_out(folder)
            if endings:
                shown = ", ".join(f"{count:,} {ending}" for ending, count in endings.items())
                yield f"No reader for {sum(endings.values()):,} files of {path}: {shown}."


def _answerless(answered: "dict[str, np.ndarray]") -> Iterator[str]:
    for split, flags in answered.items():
        num_rows = len(flags) - int(flags.sum())
        if num_rows:
            yield (
                f"{num_rows:,} of {len(flags):,} {split} rows hold a prompt without an answer; "
                "supervised training learns nothing from them."
            )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _summary(report: IngestReport) -> str:
    splits = ", ".join(f"{rows:,} {split}" for split, rows in report.splits.items())
    return f"{report.total('rows'):,} rows read: {splits}, {report.total('quarantined'):,} bad"
