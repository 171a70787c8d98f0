"""`swift export` and `swift merge-lora`: other forms of a model, or a dataset encoded once.

What is asked for happens in this order: the adapter is merged, the model quantized, written as
GGUF with a Modelfile, and published.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts.adopt import materialize
from swiftcore.cli.listener import TerminalListener
from swiftcore.cli.options import Parser, print_json
from swiftcore.errors import UsageError
from swiftcore.export.gguf.outtypes import OUTTYPES
from swiftcore.recipe import Runtime, build_recipe
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.stages import build_road, run_steps
from swiftcore.stages.contract import Source
from swiftcore.stages.resolve import resolve_reference

_TEXT = {
    "export": """Make another form of a model: merged (--merge_lora), quantized (--quant_method),
one GGUF file (--to_gguf), an Ollama model (--to_ollama), or a repository on the hub
(--push_to_hub). Or encode a dataset once (--to_cached_dataset), for `swift sft --cached_dataset`.
Other flags are ms-swift's; swift args lists them.""",
    "merge-lora": "Fold an adapter into its base model, and show that both answer the same.",
}
_TRUE = ("true", "1", "yes")


def main(argv: Sequence[str]) -> int:
    """Do what the flags ask for and say where the result is."""
    name = argv[0].replace("_", "-")
    options, flags = _parser(name).parse_known_args(argv[1:])
    if name == "merge-lora":
        options.merge_lora = True
    if options.output_dir is None and not (options.push_to_hub and _makes_nothing(options)):
        raise UsageError(
            "there is no folder for the result",
            where=f"swift {name}",
            found=" ".join(argv[1:]) or "no flag",
            expected="--output_dir FOLDER",
            do=f"name a new folder; swift {name} --help shows what can be made",
        )
    encodes = options.to_cached_dataset
    result = _encode(options, flags) if encodes else _export(name, options, flags)
    if options.json:
        print_json(result)
    else:
        for key, value in result.items():
            print(f"  {key:<9}{value}")
    return 0


def _parser(name: str) -> Parser:
    parser = Parser(f"swift {name}", _TEXT[name])
    parser.add_argument("--output_dir", type=Path, help="folder for the result")
    parser.add_argument("--model", help="model folder, or artifact:FINGERPRINT")
    parser.add_argument("--adapters", nargs="+", default=[], help="adapter folder to merge")
    parser.add_argument("--store", type=Path, help="artifact store (default: runtime.store)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    if name == "merge-lora":
        parser.set_defaults(quant_method=None, to_gguf=None, to_ollama=False, push_to_hub=False)
        parser.set_defaults(to_cached_dataset=False)
        return parser
    _add_flag(parser, "--merge_lora", "merge --adapters first")
    parser.add_argument("--quant_method", help="bnb, torchao, gptq, awq, fp8 or w8a8")
    parser.add_argument(
        "--to_gguf", choices=OUTTYPES, help="write GGUF; q4_k_m, q5_k_m, q6_k need llama_cpp"
    )
    _add_flag(parser, "--to_ollama", "write GGUF (f16 unless --to_gguf says otherwise), Modelfile")
    _add_flag(parser, "--to_cached_dataset", "encode a dataset instead")
    _add_flag(parser, "--push_to_hub", "upload the result; HF_TOKEN is the token")
    parser.add_argument("--hub_model_id", help="owner/name of the repository")
    _add_flag(parser, "--hub_private_repo", "who may see it (default: true)", default=True)
    parser.add_argument("--commit_message", default="update files", help="of the upload")
    parser.add_argument("--license", help="licence for the model card, such as apache-2.0")
    _add_flag(parser, "--dry-run", "say what would be uploaded, and upload nothing")
    return parser


def _add_flag(parser: Parser, name: str, text: str, *, default: bool = False) -> None:
    """Add a flag as ms-swift writes them: bare, or with true or false."""
    parser.add_argument(name, nargs="?", const=True, default=default, type=_truth, help=text)


def _truth(word: str) -> bool:
    if word.lower() not in (*_TRUE, "false", "0", "no"):
        raise argparse.ArgumentTypeError(f"takes true or false, found {word}")
    return word.lower() in _TRUE


def _makes_nothing(options: argparse.Namespace) -> bool:
    made = (options.merge_lora, options.quant_method, options.to_gguf, options.to_ollama)
    return not any((*made, options.to_cached_dataset))


def _encode(options: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    passed = [*flags, *_passed(options)]
    values = recipe_from_flags("export --to-cached-dataset", passed)
    loaded = build_recipe(values, path=Path("export-flags"))
    store = Store(loaded.runtime.store)
    road = build_road(loaded, store)
    listener = TerminalListener(quiet=options.json)
    made = run_steps(road.until("template"), store, loaded.runtime, listener)
    artifact = made[road.step("template").label]
    materialize(artifact, options.output_dir)
    return {"path": str(options.output_dir), "fingerprint": artifact.fingerprint}


def _passed(options: argparse.Namespace) -> list[str]:
    """Return the flags that a recipe reads too."""
    named = {
        "model": options.model,
        "store": options.store,
        "quant_method": options.quant_method,
    }
    words = [f"--{name}={value}" for name, value in named.items() if value is not None]
    if options.adapters:
        words += ["--adapters", *options.adapters]
    return words


def _export(name: str, options: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    if options.model is None:
        raise UsageError(
            "there is no model to work on", where=f"swift {name}", do="give --model FOLDER"
        )
    if flags and not options.quant_method:
        raise UsageError(
            "flags that do nothing here",
            where=f"swift {name}",
            found=" ".join(flags),
            do="leave them out, or add --quant_method",
        )
    if _makes_nothing(options) and not options.push_to_hub:
        raise UsageError(
            "nothing to do",
            where=f"swift {name}",
            expected="--merge_lora, --quant_method, --to_gguf, --to_ollama, --to_cached_dataset or "
            "--push_to_hub",
            do="say which form is wanted",
        )
    _refuse_idle(name, options)
    store = Store(options.store or Runtime().store)
    result: dict[str, Any] = {}
    model = resolve_reference(options.model, store)
    if options.quant_method:
        model = _quantized(options, flags, result)
    elif options.merge_lora:
        model = Source(_merged(options, model.path, result), "merged model")
    folder = model.path
    if options.to_gguf or options.to_ollama:
        folder = _write_gguf(options, folder, result)
    if options.push_to_hub:
        _publish(options, folder, model, store, result)
    return result


def _refuse_idle(name: str, options: argparse.Namespace) -> None:
    idle = None
    if options.adapters and not options.merge_lora:
        idle = "--adapters without --merge_lora: only a merged adapter has another form"
    elif options.merge_lora and len(options.adapters) != 1:
        idle = f"--merge_lora with {len(options.adapters)} adapters: it takes one, in --adapters"
    elif options.quant_method and (options.to_gguf or options.to_ollama):
        idle = "--quant_method with GGUF, which quantizes in its own way: --to_gguf q4_k_m"
    elif options.push_to_hub and options.hub_model_id is None:
        idle = "--push_to_hub without --hub_model_id owner/name"
    if idle:
        raise UsageError(
            "flags don't fit together", where=f"swift {name}", found=idle, do="see --help"
        )


def _merged(options: argparse.Namespace, base: Path, result: dict[str, Any]) -> Path:
    from swiftcore.export.merge_folder import merge_into_folder

    report = merge_into_folder(base, Path(options.adapters[0]), options.output_dir)
    result["path"] = str(options.output_dir)
    result["max_logit_difference"] = report.max_logit_difference
    return options.output_dir


def _quantized(options: argparse.Namespace, flags: list[str], result: dict[str, Any]) -> Artifact:
    from swiftcore.stages.export_road import export_steps

    merged = ["--merge_lora"] if options.merge_lora else []
    values = recipe_from_flags("export", [*flags, *_passed(options), *merged])
    loaded = build_recipe(values, path=Path("export-flags"))
    store = Store(loaded.runtime.store)
    steps = export_steps(loaded, store)
    made = run_steps(steps, store, loaded.runtime, TerminalListener(quiet=options.json))
    artifact = made[steps[-1].label]
    materialize(artifact, options.output_dir)
    result["path"] = str(options.output_dir)
    result["fingerprint"] = artifact.fingerprint
    result["recovery"] = artifact.record.metrics["recovery"]
    return artifact


def _write_gguf(options: argparse.Namespace, model: Path, result: dict[str, Any]) -> Path:
    from swiftcore.export.gguf import export_gguf

    outtype = options.to_gguf or "f16"
    file = options.output_dir / f"model-{outtype}.gguf"
    modelfile = _modelfile(model, file.name) if options.to_ollama else None
    report = export_gguf(model, file, outtype)
    result |= {"gguf": str(file), "size_bytes": report.size_bytes}
    result |= {"kl_divergence": report.kl_divergence, "perplexity": report.perplexity}
    result["unquantized_perplexity"] = report.unquantized_perplexity
    if modelfile is not None:
        path = options.output_dir / "Modelfile"
        path.write_text(modelfile, encoding="utf-8")
        result["modelfile"] = str(path)
    return options.output_dir


def _modelfile(model: Path, file_name: str) -> str:
    from swiftcore.export.ollama import modelfile
    from swiftcore.models import load_tokenizer
    from swiftcore.template import load_template

    return modelfile(load_template(model, load_tokenizer(model)), f"./{file_name}")


def _publish(
    options: argparse.Namespace,
    folder: Path,
    model: Artifact | Source,
    store: Store,
    result: dict[str, Any],
) -> None:
    from swiftcore.export.hub import publish
    from swiftcore.export.model_card import CardFacts, facts_of, model_card

    name = options.hub_model_id.rpartition("/")[2]
    facts = facts_of(model, store, name) if isinstance(model, Artifact) else CardFacts(name)
    publication = publish(
        folder,
        options.hub_model_id,
        card=model_card(facts, options.license),
        private=options.hub_private_repo,
        message=options.commit_message,
        dry_run=options.dry_run,
    )
    result["published"] = asdict(publication)
