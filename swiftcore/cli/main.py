"""Entry point of `swift`: find the command, run it, turn errors into one block and an exit code.

Commands that need Prefect, MLflow or DVC live above this library and announce themselves in the
entry-point group `swift.commands`; a command is a function that takes its arguments as a list and
returns an exit code.
"""

import difflib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points, version
from types import FrameType

from swiftcore.errors import Cancelled, SwiftError, UsageError
from swiftcore.models.quiet import quiet_imports

Command = Callable[[Sequence[str]], int]

# name: (module with a `main(argv)` function, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("swiftcore.cli.plan", "say what would run, what is reused, why, and how long"),
    "status": ("swiftcore.cli.status", "list artifacts and running endpoints"),
    "lineage": ("swiftcore.cli.lineage", "show what an artifact or a registered model came from"),
    "verify": ("swiftcore.cli.verify", "compare artifacts with their records, byte by byte"),
    "gc": ("swiftcore.cli.gc", "remove artifacts that nothing uses"),
    "adopt": ("swiftcore.cli.adopt", "take a finished artifact folder into the store"),
    "push": ("swiftcore.cli.transfer", "copy an artifact to a remote"),
    "pull": ("swiftcore.cli.transfer", "fetch an artifact from a remote"),
    "stage": ("swiftcore.cli.stage", "run one stage and put its result into a folder"),
    "sft": ("swiftcore.cli.train", "supervised fine-tuning from flags"),
    "pt": ("swiftcore.cli.train", "pre-training from flags"),
    "export": ("swiftcore.cli.export", "merge, quantize, write GGUF, publish; encode a dataset"),
    "merge-lora": ("swiftcore.cli.export", "fold an adapter into its base model"),
    "convert": ("swiftcore.cli.convert", "write a model folder as one GGUF file"),
    "eval": ("swiftcore.cli.eval", "evaluate a model or an endpoint on benchmarks"),
    "infer": ("swiftcore.cli.infer", "answer the rows of a dataset, or a person"),
    "sample": ("swiftcore.cli.sample", "keep the best of several answers, to train on"),
    "deploy": ("swiftcore.cli.deploy", "serve a model folder; --status, --stop"),
    "dataset": ("swiftcore.cli.dataset", "turn documents, code and data files into training rows"),
    "template": ("swiftcore.cli.template", "list templates; show rows as tokens; compare"),
    "args": ("swiftcore.cli.args", "list every argument and whether it works"),
    "env": ("swiftcore.cli.env", "install, check and remove the environments of backends"),
    "doctor": ("swiftcore.cli.doctor", "check that this machine can do the work"),
}
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [text for text in arguments if text != "--debug"]
    signal.signal(signal.SIGTERM, _interrupt)
    quiet_imports()
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(usage())
            return 0 if arguments else UsageError.exit_code
        if arguments[0] == "--version":
            print(version("swiftcore"))
            return 0
        return _command(arguments[0])(arguments)
    except SwiftError as err:
        return report(err, as_json="--json" in arguments, debug=debug)
    except KeyboardInterrupt:
        cancelled = Cancelled(
            "Stopped on request.",
            found="an interrupt (Ctrl-C or SIGTERM)",
            do="run the same command again: finished steps are reused, training resumes",
        )
        return report(cancelled, as_json="--json" in arguments, debug=debug)
    except BrokenPipeError:
        # The reader of our output went away (`swift args | head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    except Exception as err:
        if debug:
            raise
        bug = SwiftError(
            "This is a bug in this project, not in what you did.",
            where=_where(err),
            found=f"{type(err).__name__}: {err}",
            do="run again with --debug for the traceback, and report it with that",
        )
        return report(bug, as_json="--json" in arguments, debug=debug)


def report(err: SwiftError, *, as_json: bool, debug: bool) -> int:
    """Print an error as one block (or as JSON) and return its exit code."""
    if debug:
        traceback.print_exception(err)
    if as_json:
        print(json.dumps(err.as_dict(), ensure_ascii=False))
    else:
        print(f"{err.title}: {err}", file=sys.stderr)
    return err.exit_code


def usage() -> str:
    """Return the list of commands."""
    lines = ["usage: swift COMMAND ... [--json] [--debug]", "", "commands:"]
    table = {name: text for name, (_, text) in COMMANDS.items()}
    for point in entry_points(group="swift.commands"):
        table[point.name] = _PLUGIN_TEXT.get(point.name, f"from {point.value.partition(':')[0]}")
    lines += [f"  {name:<11}{table[name]}" for name in sorted(table)]
    lines += ["", "swift COMMAND --help says more about one of them."]
    return "\n".join(lines)


_PLUGIN_TEXT = {
    "run": "run a recipe as a Prefect flow: from rows to a served model",
    "promote": "make a registered version the champion",
    "rollback": "put the previous version back into service",
    "compare": "compare two evaluations question by question",
}


def _command(name: str) -> Command:
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main
    for point in entry_points(group="swift.commands", name=name):
        load = point.load()
        return lambda argv: load(argv[1:])
    known = [*COMMANDS, *(point.name for point in entry_points(group="swift.commands"))]
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        "There is no such command.",
        where="swift",
        found=name,
        expected=f"{near[0]}?" if near else f"one of {', '.join(sorted(known))}",
        do="swift --help lists the commands",
    )


def _where(err: BaseException) -> str | None:
    frames = traceback.extract_tb(err.__traceback__)
    return f"{frames[-1].name}, line {frames[-1].lineno}" if frames else None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
