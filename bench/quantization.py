"""Quantize one model with every method, load each result everywhere, and write the table.

    .venv/bin/python -m bench.quantization MODEL ENCODED --into docs/quantization.md

MODEL is a trained model folder, ENCODED what the template stage made for it. Backends that are not
installed are said to be missing. The lines between the markers in the file are replaced.

A cell of vLLM holds the perplexity of the same rows as its own server predicts them: a model that
is only loaded could answer anything.
"""

import argparse
import math
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from swiftcore.backends import get_backend, open_environment
from swiftcore.backends.serving import ServeOrder
from swiftcore.backends.tool_server import start_tool_server
from swiftcore.errors import BackendFailed, SwiftError
from swiftcore.export import Workplace, quantize_model
from swiftcore.export.by_backend import compare_in_backend
from swiftcore.export.quality import compare
from swiftcore.models import load_model
from swiftcore.recipe import QuantizeSection, Runtime
from swiftcore.stages.merge import held_out_rows
from swiftcore.template import load_encoded

BEGIN, END = "<!-- made by bench.quantization -->", "<!-- end -->"
NUM_ROWS = 16
IGNORED = -100
UNQUANTIZED = "unquantized"
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
    "| method | recovery | KL, nats | perplexity | bytes | transformers here "
    "| gptqmodel's environment | vLLM, perplexity |",
    "|---|---|---|---|---|---|---|---|",
]
VLLM_SECONDS = 420


@dataclass(frozen=True)
class Bench:
    """What every method is tried on."""

    model: Path
    encoded: Path
    work: Path

    def line(self, settings: dict[str, Any]) -> str:
        """Quantize with one method and return its line of the table."""
        name = name_of(settings)
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
            return f"| {name} | {err.message} | | | | | | |"
        here = tried(lambda: load_model(out))
        there = tried(lambda: compare_in_backend(self.model, out, rows[:1], at))
        served = said(lambda: vllm_perplexity(out, rows, at.folder.with_suffix(".vllm.log")))
        return (
            f"| {name} | {report.recovery:.3f} | {report.kl_divergence:.1e} "
            f"| {report.quantized_perplexity:.3f} "
            f"| {report.size_bytes / report.unquantized_size_bytes:.2f} | {here} | {there} "
            f"| {served} |"
        )

    def unquantized(self) -> str:
        """Return the line of the model as it is."""
        rows = held_out_rows(self.encoded, NUM_ROWS)
        model = load_model(self.model)
        at = Workplace(self.work / "unquantized-job", Runtime())
        there = tried(lambda: compare_in_backend(self.model, self.model, rows[:1], at))
        served = said(lambda: vllm_perplexity(self.model, rows, at.folder.with_suffix(".vllm.log")))
        perplexity = compare(model, model, rows).unquantized.perplexity
        return f"| {UNQUANTIZED} | 1.000 | 0 | {perplexity:.3f} | 1.00 | yes | {there} | {served} |"


def name_of(settings: Mapping[str, Any]) -> str:
    """Return a method's name in the table."""
    return " ".join(str(value) for value in settings.values())


def tried(load: Callable[[], object]) -> str:
    """Return "yes", or "no" when loading fails."""

    def loaded() -> str:
        load()
        return "yes"

    return said(loaded)


def said(find: Callable[[], object]) -> str:
    """Return what was found as text, or "no", with the reason on stderr."""
    try:
        return str(find())
    except SwiftError as err:
        print(err, file=sys.stderr)
        return "no"


def vllm_perplexity(folder: Path, rows: Sequence[Mapping[str, Any]], log: Path) -> str:
    """Return the perplexity of the rows' label tokens as vLLM's server predicts them.

    Raises:
        BackendMissing: vLLM is not installed.
        BackendFailed: it does not load the model, or fails at a request.
    """
    order = ServeOrder(backend="vllm", model_dir=folder)
    loss, count = 0.0, 0
    with start_tool_server(
        order, log=log, runtime=Runtime(), timeout_seconds=VLLM_SECONDS
    ) as server:
        for row in rows:
            asked = {"model": server.model, "prompt": list(row["input_ids"]), "max_tokens": 1}
            answer = httpx.post(
                f"{server.url}/v1/completions",
                json={**asked, "prompt_logprobs": 0, "temperature": 0},
                headers=server.headers,
                timeout=120,
                trust_env=False,
            )
            if answer.status_code != 200:
                raise BackendFailed("vLLM fails at a request", found=answer.text[:500])
            told = answer.json()["choices"][0]["prompt_logprobs"]
            for place, label in enumerate(row["labels"]):
                if place and label != IGNORED:
                    loss -= told[place][str(label)]["logprob"]
                    count += 1
    return f"{math.exp(loss / count):.3f}"


def main() -> None:
    """Try everything and replace the table in a file, or print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("encoded", type=Path)
    parser.add_argument("--into", type=Path, help="file whose table is replaced")
    parser.add_argument("--only", nargs="+", help="methods to try again; other lines stay")
    options = parser.parse_args()
    lines = read_table(options.into) if options.into and options.only else {}
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(options.model, options.encoded, Path(work))
        tries = {name_of(each): partial(bench.line, each) for each in METHODS}
        tries = {UNQUANTIZED: bench.unquantized} | tries
        for name in options.only or tries:
            lines[name] = tries[name]()
            print(lines[name], flush=True)
            if options.into:
                write_table([lines[each] for each in tries if each in lines], options.into)


def read_table(file: Path) -> dict[str, str]:
    """Return the lines that stand between the markers in a file, by method."""
    table = file.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return {line.split("|")[1].strip(): line for line in lines}


def write_table(lines: Sequence[str], file: Path) -> None:
    """Replace what stands between the markers in a file."""
    versions = ", ".join(
        f"{name} {get_backend(name).version}"
        + ("" if open_environment(get_backend(name)).installed else " (not installed)")
        for name in ("llmcompressor", "gptqmodel", "autoawq", "lmdeploy_lite", "vllm_cpu")
    )
    made = f"Made on {datetime.now(UTC):%Y-%m-%d}, {platform.machine()} CPU, with {versions}."
    table = "\n".join([BEGIN, "", *HEAD, *lines, "", made, "", END])
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    file.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
