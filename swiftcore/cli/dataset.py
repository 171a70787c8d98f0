"""`swift dataset`: documents, source code, data files and hub datasets become one JSONL file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from swiftcore.cli.options import Parser, add_json, print_json
from swiftcore.data.documents import (
    DatasetFormat,
    DatasetIngester,
    ExtractionLimits,
    HuggingFaceSource,
    IngestionConfig,
)
from swiftcore.data.documents.config import DEFAULT_CHUNK_SIZE
from swiftcore.errors import UsageError
from swiftcore.progress import Silent, TerminalProgress

_EPILOG = """examples:
  swift dataset --input ./docs ./src --output train.jsonl --format code
  swift dataset --hf-dataset tatsu-lab/alpaca --format sft_completion --output alpaca.jsonl

Beside the output stands OUTPUT.report.json with every file, and OUTPUT.quarantine.jsonl with the
data rows that were rejected. Instruction data is taken from rows that hold it, never made out of
raw text."""
# flag of the command: column of a standard row
_COLUMN_FLAGS = {
    "text": "response",
    "prompt": "query",
    "completion": "response",
    "messages": "messages",
    "system": "system",
}
_MIB = 2**20


def main(argv: Sequence[str]) -> int:
    """Ingest and say what came of it."""
    options = _parser().parse_args(argv[1:])
    config = IngestionConfig(
        output_path=options.output,
        input_paths=tuple(options.input),
        format=DatasetFormat(options.format),
        chunk_size=options.chunk_size,
        chunk_overlap=options.chunk_overlap,
        tokenizer=options.tokenizer,
        hf_sources=_hub_sources(options),
        limits=_limits(options),
        num_workers=options.workers,
        column_names=tuple(options.column_names),
    )
    progress = Silent() if options.json else TerminalProgress("dataset")
    result = DatasetIngester(config).run(progress)
    if options.json:
        print_json(result.as_dict())
    else:
        print(result.summary())
    return 0


def _parser() -> Parser:
    parser = Parser("swift dataset", "Turn documents, code and datasets into JSONL.", _EPILOG)
    add = parser.add_argument
    add("--input", nargs="+", type=Path, default=[], metavar="PATH", help="files and folders")
    add("--output", type=Path, required=True, metavar="FILE", help="the JSONL file")
    add("--format", choices=list(DatasetFormat), default="pretraining", help="form of the rows")
    add(
        "--chunk-size",
        type=int,
        default=DEFAULT_CHUNK_SIZE,
        metavar="N",
        help=f"longest text of a row in characters ({DEFAULT_CHUNK_SIZE}); 0: whole documents",
    )
    add("--chunk-overlap", type=int, default=0, metavar="N", help="repeated by the next chunk (0)")
    add("--tokenizer", type=Path, metavar="DIR", help="sizes count tokens of this tokenizer")
    add(
        "--column-names",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of local CSV and TSV files without a header line",
    )
    add("--workers", type=int, metavar="N", help="documents read at once (processors, at most 4)")
    add("--max-seconds", type=float, default=60.0, metavar="N", help="for one document (60)")
    add("--max-memory", type=int, default=2048, metavar="MIB", help="for one document (2048)")
    hub = parser.add_argument_group("datasets on hubs").add_argument
    hub("--hf-dataset", action="append", default=[], metavar="ORG/NAME", help="may be repeated")
    hub("--hf-subset", metavar="NAME", help="configuration of the dataset")
    hub("--hf-split", default="train", metavar="NAME", help="split to read (train)")
    hub("--hf-revision", metavar="REV", help="commit, tag or branch")
    hub("--hf-max-samples", type=int, metavar="N", help="rows to read at most, of each dataset")
    hub("--hf-streaming", action="store_true", help="fetch files one by one as rows are read")
    hub("--hf-offline", action="store_true", help="use only what was downloaded before")
    hub("--hf-hub", choices=["hf", "ms"], default="hf", help="Hugging Face or ModelScope")
    for name in _COLUMN_FLAGS:
        hub(f"--hf-{name}-column", metavar="COLUMN", help=f"column with the {name}")
    add_json(parser)
    return parser


def _hub_sources(options: argparse.Namespace) -> tuple[HuggingFaceSource, ...]:
    columns = {
        getattr(options, f"hf_{name}_column"): target
        for name, target in _COLUMN_FLAGS.items()
        if getattr(options, f"hf_{name}_column")
    }
    if not options.hf_dataset and (
        columns or options.hf_subset or options.hf_max_samples or options.hf_streaming
    ):
        raise UsageError(
            "hub options are given without a hub dataset",
            where="swift dataset",
            expected="--hf-dataset ORG/NAME",
        )
    return tuple(
        HuggingFaceSource(
            name,
            options.hf_subset,
            options.hf_split,
            options.hf_revision,
            options.hf_max_samples,
            columns,
            options.hf_offline,
            options.hf_hub,
            options.hf_streaming,
        )
        for name in options.hf_dataset
    )


def _limits(options: argparse.Namespace) -> ExtractionLimits:
    if options.max_seconds <= 0 or options.max_memory < 1:
        raise UsageError("limits are above zero", where="--max-seconds and --max-memory")
    return ExtractionLimits(
        memory_bytes=options.max_memory * _MIB, seconds_a_file=options.max_seconds
    )
