"""`swift convert`: a model folder as one GGUF file."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from swiftcore.cli.options import Parser, add_json, print_json
from swiftcore.errors import UsageError
from swiftcore.export.gguf.outtypes import OUTTYPES


def main(argv: Sequence[str]) -> int:
    """Convert, and say what the file holds."""
    parser = Parser("swift convert", "Write a model folder (safetensors) as GGUF, and compare.")
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("output", type=Path, help="file that ends with .gguf")
    parser.add_argument("--outtype", choices=OUTTYPES, default="f16")
    add_json(parser)
    options = parser.parse_args(argv[1:])
    if options.output.suffix != ".gguf" or options.model.suffix == ".gguf":
        raise UsageError(
            "only a model folder can be converted, and only to GGUF",
            where="swift convert",
            found=f"{options.model} to {options.output}",
            expected="FOLDER FILE.gguf",
            do="other formats lose weights or settings on the way back",
        )
    from swiftcore.export.gguf import export_gguf

    report = export_gguf(options.model, options.output, options.outtype)
    if options.json:
        print_json(asdict(report))
    else:
        size = report.size_bytes / 1e6
        print(f"  gguf     {report.path} ({size:.1f} MB, pre-tokenizer {report.pre_tokenizer})")
        print(f"  differs  by {report.kl_divergence:.2g} nats a token from the folder's model")
    return 0
