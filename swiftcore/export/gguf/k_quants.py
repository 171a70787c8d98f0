"""Types that only llama.cpp makes: it quantizes a plain file, and reads the result back."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from swiftcore.backends.environment import open_environment
from swiftcore.backends.llama_cpp import BACKEND
from swiftcore.backends.llama_cpp.adapter import QuantizeFileJob, quantize_file
from swiftcore.errors import StoreFull, UsageError
from swiftcore.export.folder import stored_dtype_name, weight_bytes
from swiftcore.export.gguf.checking import (
    CHECK_TEXTS,
    check_rows,
    deviation,
    logits_of,
    refuse_divergence,
    refuse_other_tokens,
)
from swiftcore.export.gguf.convert import GgufReport, export_gguf
from swiftcore.export.gguf.outtypes import Outtype
from swiftcore.models.facts import safetensors_header
from swiftcore.models.files import require_model_folder
from swiftcore.models.loading import load_model, load_tokenizer
from swiftcore.progress import Progress
from swiftcore.recipe import Runtime

if TYPE_CHECKING:
    from torch import Tensor

# llama.cpp cuts rows into blocks of so many weights, and stores narrower ones in an older type.
_BLOCK = 256
_LOSSLESS: dict[str, Outtype] = {"float32": "f32", "bfloat16": "bf16"}


def export_k_quant(
    model_dir: Path, file: Path, outtype: str, runtime: Runtime, watch: Progress
) -> GgufReport:
    """Write a model in a type of llama.cpp's own, and let llama.cpp read it back.

    Args:
        model_dir: unquantized model folder.
        file: where to; replaced whole or not at all.
        outtype: one of K_QUANTS.
        runtime: where the backend is.
        watch: told each step.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: the family or its tokenizer can't be written, or it is too narrow.
        StoreFull: there is no room for the plain file and the result.
        BackendMissing: the backend llama_cpp is not installed.
        BackendFailed: llama.cpp crashed.
        GateRefused: what was read back differs from the model.
    """
    require_model_folder(model_dir)
    _refuse_narrow(model_dir, outtype)
    # Known before the plain file is written, which takes minutes for a large model.
    with open_environment(BACKEND, runtime).in_use(install=runtime.install_backends):
        pass
    _require_room(model_dir, file.parent)
    mark = uuid4().hex[:8]
    plain, made = (file.with_name(f".{mark}.{kind}.{file.name}") for kind in ("plain", outtype))
    try:
        written = export_gguf(
            model_dir, plain, _LOSSLESS.get(stored_dtype_name(model_dir), "f16"), progress=watch
        )
        watch.update(0, 1, f"{outtype} by llama.cpp")
        report = _quantize(model_dir, written, made, outtype, runtime, watch)
        os.replace(made, file)
    finally:
        plain.unlink(missing_ok=True)
        made.unlink(missing_ok=True)
    watch.update(1, 1, f"divergence {report.kl_divergence:.1e}")
    return replace(report, path=file)


def _quantize(
    model_dir: Path, plain: GgufReport, made: Path, outtype: str, runtime: Runtime, watch: Progress
) -> GgufReport:
    """Let llama.cpp make the file and read it, and compare what it reads with the model."""
    import gguf

    tokenizer = load_tokenizer(model_dir)
    rows = check_rows(tokenizer)
    # Kept when the job fails: its log is in it.
    work = Path(tempfile.mkdtemp(prefix="swift-gguf-"))
    job = QuantizeFileJob(
        source=plain.path.absolute(),
        out=made.absolute(),
        outtype=outtype.upper(),
        texts=list(CHECK_TEXTS),
        rows=rows,
        logits=work / "logits.npz",
        threads=runtime.num_threads,
    )
    done = quantize_file(job, work, runtime, watch)
    refuse_other_tokens(done.tokens, tokenizer, made.name)
    original = logits_of(load_model(model_dir, dtype="float32"), rows)
    found = deviation(original, _read_logits(job.logits), rows)
    shutil.rmtree(work)
    refuse_divergence(found.kl_divergence, outtype)
    return replace(
        plain,
        path=made,
        outtype=outtype,
        num_tensors=len(gguf.GGUFReader(made).tensors),
        size_bytes=made.stat().st_size,
        kl_divergence=found.kl_divergence,
        perplexity=found.perplexity,
    )


def _read_logits(file: Path) -> "list[Tensor]":
    import numpy as np
    import torch

    with np.load(file) as arrays:
        return [torch.from_numpy(arrays[name]) for name in arrays.files]


def _refuse_narrow(model_dir: Path, outtype: str) -> None:
    widths = {
        entry["shape"][-1]
        for path in model_dir.glob("*.safetensors")
        for entry in safetensors_header(path).values()
        if len(entry["shape"]) == 2
    }
    if all(width % _BLOCK for width in widths):
        raise UsageError(
            f"nothing of this model can be stored as {outtype}",
            where=model_dir,
            found=f"matrices {', '.join(map(str, sorted(widths)))} wide",
            expected=f"a width that {_BLOCK} divides",
            do="use --to_gguf q8_0",
        )


def _require_room(model_dir: Path, folder: Path) -> None:
    """Make sure that the plain file and the result, which is smaller, fit beside each other."""
    folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(folder).free, 2 * weight_bytes(model_dir)
    if free < needed:
        raise StoreFull(
            "there is no room for the GGUF file",
            where=folder,
            found=f"{free / 1e6:.1f} MB free, about {needed / 1e6:.1f} MB needed",
            expected="room for the file, and for the unrounded one that it is made from",
            do="free some space, or write to another disk",
        )
