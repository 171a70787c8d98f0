"""Merging an adapter outside the store: a folder in, a folder out, whole or not at all."""

import shutil
from pathlib import Path
from uuid import uuid4

from swiftcore.errors import UsageError
from swiftcore.export.merge import MergeReport, merge_adapter
from swiftcore.models import load_tokenizer
from swiftcore.recipe.sections import MergeSection

_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "What is 12 * (3 + 4)? Answer in one word, please!",
    "def add(a, b):\n    return a + b\n",
)


def merge_into_folder(base: Path, adapter: Path, out_dir: Path) -> MergeReport:
    """Write the merged model to a new folder, compared with the adapter on a few texts.

    Raises:
        UsageError: the folder holds something already, or the adapter is of another base.
        ModelMissing: base or adapter is not there.
        GateRefused: the merged model answers otherwise.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise UsageError(
            "the output folder is not empty",
            where=out_dir,
            do="give a new folder, or move its files away",
        )
    tokenizer = load_tokenizer(base)
    samples = [tokenizer(text).input_ids for text in _TEXTS]
    staging = out_dir.with_name(f".{out_dir.name}-{uuid4().hex[:8]}")
    try:
        report = merge_adapter(base, adapter, staging, MergeSection(), sample_ids=samples)
        if out_dir.exists():
            out_dir.rmdir()
        staging.rename(out_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report
