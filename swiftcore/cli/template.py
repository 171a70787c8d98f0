"""`swift template`: list templates, show rows as tokens, compare with a model's own template."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swiftcore.cli.options import Parser, add_json, add_store, print_json
from swiftcore.cli.tables import print_table
from swiftcore.errors import GateRefused, UsageError

_TEXT = """Templates turn rows into tokens.

  swift template list [WORD ...]        the registered templates
  swift template show RECIPE            a recipe's rows as tokens, coloured by what is trained
  swift template show --model FOLDER --dataset FILE [--template NAME] ...
  swift template compare ...            the same arguments: ours against the model's own template"""
_SHOW = """Show rows as the tokens that a model is trained on, or asked with, without running a
stage. Give a recipe, or flags of ms-swift (--model, --dataset, --template, --max_length,
--loss_scale, --agent_template, --system, ...). Colours appear on a terminal; NO_COLOR turns them
off."""
_COMPARE = """Compare our tokens with those of the chat template that came with the model, row by
row, for prompts and for whole conversations. Ends with exit code 4 when any differ. Give a recipe,
or --model FOLDER --dataset FILE, and --template NAME for another than the inferred one."""
_MAX_SYSTEM = 44
_MAX_STOPS = 48


def main(argv: Sequence[str]) -> int:
    """Run one of the three."""
    actions = {"list": _list, "show": _show, "compare": _compare}
    wanted = argv[1] if len(argv) > 1 else "--help"
    if wanted in ("-h", "--help"):
        print(_TEXT)
        return 0 if len(argv) > 1 else UsageError.exit_code
    if wanted not in actions:
        raise UsageError(
            "swift template does not know this word",
            where="swift template",
            found=wanted,
            expected=" | ".join(actions),
            do="swift template --help explains them",
        )
    return actions[wanted](argv[2:])


def _list(argv: Sequence[str]) -> int:
    parser = Parser("swift template list", "List the registered templates.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="all of them must be in a line")
    add_json(parser)
    options = parser.parse_args(argv)
    words = [word.lower() for word in options.words]
    found = [
        entry
        for entry in _entries()
        if all(word in " ".join(map(str, entry.values())).lower() for word in words)
    ]
    if options.json:
        print_json(found)
        return 0
    print_table(
        ["template", "tools as", "thinking", "stop words", "default system"],
        [
            [
                entry["name"],
                entry["agent_template"] or "",
                entry["thinking"],
                _cut(" ".join(map(repr, entry["stop_words"])), _MAX_STOPS),
                _cut(entry["default_system"] or "", _MAX_SYSTEM),
            ]
            for entry in found
        ],
    )
    print(f"{len(found)} templates.")
    return 0


def _entries() -> list[dict[str, Any]]:
    from swiftcore.template.registry import JINJA, find_definition, list_templates

    entries: list[dict[str, Any]] = []
    for name in list_templates():
        if name == JINJA:
            entries.append(
                {
                    "name": JINJA,
                    "default_system": "(the model's own chat template)",
                    "agent_template": None,
                    "thinking": "",
                    "stop_words": [],
                }
            )
            continue
        family = find_definition(name)
        suffix = family.suffix.strip() or family.suffix
        entries.append(
            {
                "name": name,
                "default_system": family.default_system,
                "agent_template": family.agent_template or "hermes",
                "thinking": _thinking(family),
                "stop_words": list(dict.fromkeys(w for w in (suffix, *family.stop_words) if w)),
            }
        )
    return entries


def _thinking(family: Any) -> str:
    if not family.is_thinking:
        return ""
    if family.always_thinks:
        return "always"
    return "on" if family.thinks_by_default else "off"


def _show(argv: Sequence[str]) -> int:
    from swiftcore.cli.template_rows import opened_rows
    from swiftcore.cli.token_view import TokenView

    parser = Parser("swift template show", _SHOW)
    _add_rows(parser)
    add = parser.add_argument
    add("--row", type=int, metavar="N", help="only this row, from 0, in full")
    add("--mode", choices=["train", "infer"], default="train", help="infer: the prompt (train)")
    add("--samples", type=int, default=10, metavar="N", help="rows to show (10)")
    add(
        "--tokens", type=int, default=300, metavar="N", help="most tokens of a sample (300; 0: all)"
    )
    add("--ids", action="store_true", help="one line a token, with its id and weight")
    options, opened = _opened(parser, argv, opened_rows)
    from swiftcore.template.preview import preview, show_row

    view = TokenView(opened.template, ids=options.ids)
    if options.row is not None:
        rows = opened.rows_through(options.row)
        shown = show_row(opened.template, rows, options.row, options.mode)
        if options.json:
            print_json({"settings": opened.template.settings, **shown.as_dict()})
        else:
            view.print_head(opened.told)
            view.print_sample(shown, origin=opened.origin(options.row))
        return 0
    found = preview(opened.template, opened.rows(), options.mode, max(options.samples, 1))
    if options.json:
        print_json(
            {
                "settings": opened.template.settings,
                "rows": len(opened.rows()),
                "encoded": len(found.lengths),
                "tokens": sum(found.lengths),
                "trained": found.trained,
                "drops": found.drops,
                "parity": found.parity,
                "samples": [shown.as_dict() for shown in found.shown],
            }
        )
        return 0
    view.print_head(opened.told)
    view.print_figures(found, len(opened.rows()), options.mode)
    for shown in found.shown:
        view.print_sample(shown, origin=opened.origin(shown.row), limit=options.tokens)
    return 0


def _compare(argv: Sequence[str]) -> int:
    from swiftcore.cli.template_rows import opened_rows
    from swiftcore.cli.token_view import TokenView

    parser = Parser("swift template compare", _COMPARE)
    _add_rows(parser)
    options, opened = _opened(parser, argv, opened_rows)
    from swiftcore.template import parity_report

    report = parity_report(opened.template, opened.template.tokenizer, opened.rows())
    differing = sum(report[kind]["differing"] for kind in _KINDS if kind in report)
    if not report["has_template"]:
        raise UsageError(
            "there is nothing to compare with",
            where="swift template compare",
            found="a tokenizer without a chat template",
            expected="chat_template.jinja, or chat_template in tokenizer_config.json",
            do="give the folder of an instruction-tuned model",
        )
    if options.json:
        print_json({"template": opened.template.name, "rows": len(opened.rows()), **report})
    else:
        view = TokenView(opened.template)
        view.print_head(opened.told)
        view.print_parity(report)
    return GateRefused.exit_code if differing else 0


_KINDS = ("prompt", "conversation")


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        help="override a value of the recipe; may be repeated",
    )
    parser.add_argument("--rows", type=int, default=500, metavar="N", help="rows to read (500)")
    add_store(parser)


def _opened(parser: Parser, argv: Sequence[str], opener: Any) -> tuple[argparse.Namespace, Any]:
    """Take a leading recipe or rows file, our own options, and ms-swift's flags from the rest."""
    parser.usage = f"{parser.prog} [RECIPE | ROWS] [options] [flags of swift sft]"
    place = argv[0] if argv and not argv[0].startswith("-") else None
    options, flags = parser.parse_known_args(argv[1:] if place else argv)
    if options.rows < 1:
        raise UsageError("at least one row is read", where="--rows", found=options.rows)
    return options, opener(options, Path(place) if place else None, flags)


def _cut(text: str, length: int) -> str:
    line = text.replace("\n", "↵")
    return line if len(line) <= length else line[: length - 1] + "…"
