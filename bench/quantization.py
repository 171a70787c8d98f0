"""Quantize one model with every method, load each result everywhere, and write the table.

    .venv/bin/python -m bench.quantization MODEL ENCODED --into docs/quantization.md

MODEL is a trained model folder, ENCODED what the template stage made for it. Backends that are not
installed are said to be missing. The lines between the markers in the file are replaced.
"""

import argparse
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swiftcore.backends import get_backend, open_environment
from swiftcore.errors import SwiftError
from swiftcore.export import Workplace, quantize_model
from swiftcore.export.by_backend import compare_in_backend
from swiftcore.models import load_model
from swiftcore.recipe import QuantizeSection, Runtime
from swiftcore.stages.merge import held_out_rows
from swiftcore.template import load_encoded

BEGIN, END = "<!-- made by bench.quantization -->", "<!-- end -->"
NUM_ROWS = 16
METHODS: list[dict[str, Any]] = [
    {"quant_method": "bnb", "quant_bits": 4},
    {"quant_method": "bnb", "quant_bits": 8},
    {"quant_method": "torchao", "torchao_scheme": "int8_weight_only"},
    {"quant_method": "torchao", "torchao_scheme": "int8_dynamic"},
    {"quant_method": "gptq"},
    {"quant_method": "awq"},
    {"quant_method": "fp8"},
    {"quant_method": "w8a8"},
    {"quant_method": "gptq", "quant_format": "gptq"},
    {"quant_method": "awq", "quant_format": "awq"},
    {"quant_method": "awq", "quant_format": "awq", "quant_backend": "autoawq"},
    {"quant_method": "awq", "quant_format": "awq", "quant_backend": "lmdeploy"},
]
HEAD = [
    "| method | recovery | KL, nats | bytes | transformers here | gptqmodel's environment |",
    "|---|---|---|---|---|---|",
]


@dataclass(frozen=True)
class Bench:
    """What every method is tried on."""

    model: Path
    encoded: Path
    work: Path

    def line(self, settings: dict[str, Any]) -> str:
        """Quantize with one method and return its line of the table."""
        name = " ".join(str(value) for value in settings.values())
        out = self.work / name.replace(" ", "-")
        rows = held_out_rows(self.encoded, NUM_ROWS)
        at = Workplace(out.with_name(out.name + "-job"), Runtime())
        section = QuantizeSection(min_recovery=0, quant_n_samples=NUM_ROWS, **settings)
        try:
            report = quantize_model(
                self.model,
                out,
                section,
                sample_rows=rows,
                calibration_rows=load_encoded(self.encoded, "train"),
                workplace=at,
            )
        except SwiftError as err:
            return f"| {name} | {err.message} | | | | |"
        here = tried(lambda: load_model(out))
        there = tried(lambda: compare_in_backend(self.model, out, rows[:1], at))
        return (
            f"| {name} | {report.recovery:.3f} | {report.kl_divergence:.1e} "
            f"| {report.size_bytes / report.unquantized_size_bytes:.2f} | {here} | {there} |"
        )


def tried(load: Callable[[], object]) -> str:
    """Return "yes", or the kind of error that loading ends with."""
    try:
        load()
    except SwiftError as err:
        return f"no: {err.title}"
    return "yes"


def main() -> None:
    """Try everything and replace the table in a file, or print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("encoded", type=Path)
    parser.add_argument("--into", type=Path, help="file whose table is replaced")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(options.model, options.encoded, Path(work))
        lines = []
        for settings in METHODS:
            lines.append(bench.line(settings))
            print(lines[-1], flush=True)
    versions = ", ".join(
        f"{name} {get_backend(name).version}"
        + ("" if open_environment(get_backend(name)).installed else " (not installed)")
        for name in ("llmcompressor", "gptqmodel")
    )
    made = f"Made on {datetime.now(UTC):%Y-%m-%d}, {platform.machine()} CPU, with {versions}."
    table = "\n".join([BEGIN, "", *HEAD, *lines, "", made, "", END])
    if options.into:
        text = options.into.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        options.into.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
