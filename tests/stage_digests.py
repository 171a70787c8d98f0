"""Digests of the code behind each stage, beside the version the stage had with it.

python -m tests.stage_digests                 after raising a stage's version
python -m tests.stage_digests --same-output   to state that changed code gives the same output
"""

import argparse
import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path

from swiftcore.stages import STAGES

REPO = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "stage_digests.json"
# What these do is told by a fingerprint itself, or changes no output.
_WITHOUT_INFLUENCE = {"artifacts", "cli", "errors", "progress", "recipe", "serving"}
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Entry = dict[str, int | str]


@cache  # most stages lead to the same files
def code_digest(source: str) -> str:
    """Return a digest of what a module does: comments, docstrings and layout don't count."""
    return hashlib.sha256(json.dumps(_shape(ast.parse(source))).encode()).hexdigest()


def files_behind(stage: str, root: Path = REPO) -> list[Path]:
    """Return the stage's module and all files of every swiftcore package it leads to."""
    first = root / "swiftcore" / "stages" / f"{stage}.py"
    waiting, files, followed = [first], set(), set()
    while waiting:
        file = waiting.pop()
        if file in files:
            continue
        files.add(file)
        if file.suffix != ".py":
            continue
        for name in _imported_names(file.read_text(encoding="utf-8")):
            package = _package_of(name.split("."))
            if package is not None and package not in followed:
                followed.add(package)
                waiting += _files_of(package, root)
    return sorted(files)


def stage_digest(stage: str, root: Path = REPO) -> str:
    """Return one digest for all the code behind a stage."""
    lines = []
    for file in files_behind(stage, root):
        content = file.read_bytes()
        digest = (
            code_digest(content.decode("utf-8"))
            if file.suffix == ".py"
            else hashlib.sha256(content).hexdigest()
        )
        lines.append(f"{file.relative_to(root).as_posix()} {digest}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def current() -> dict[str, Entry]:
    """Return version and digest of every stage as they are now."""
    return {
        name: {"version": stage.version, "digest": stage_digest(name)}
        for name, stage in STAGES.items()
    }


def problems(now: dict[str, Entry], golden: dict[str, Entry]) -> list[str]:
    """Return what has to be decided before the golden file can be believed."""
    found = []
    for name, entry in now.items():
        before = golden.get(name)
        if before is None or entry["version"] != before["version"]:
            found.append(f"{name}: write its new version down with `python -m tests.stage_digests`")
        elif entry["digest"] != before["digest"]:
            found.append(
                f"{name}: its code changed and its version {entry['version']} did not. If its "
                "output changed, raise the version; if not, run "
                "`python -m tests.stage_digests --same-output` to state that"
            )
    return found


def read_golden() -> dict[str, Entry]:
    """Return the committed entries; none before the first time."""
    return json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}


def main() -> int:
    """Write the golden file, unless a stage changed without a word about its output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--same-output", action="store_true", help="the changed code gives the same output"
    )
    options = parser.parse_args()
    now = current()
    silent = [text for text in problems(now, read_golden()) if "its code changed" in text]
    if silent and not options.same_output:
        print("\n".join(silent), file=sys.stderr)
        return 2
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    return 0


@cache
def _imported_names(source: str) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names[node.module] = None
        elif isinstance(node, ast.Import):
            names |= {alias.name: None for alias in node.names}
    return tuple(names)


def _package_of(module: list[str]) -> str | None:
    """Return the path of what counts for an import: lazy re-exports hide which module is meant."""
    if module[0] != "swiftcore" or len(module) < 2 or module[1] in _WITHOUT_INFLUENCE:
        return None
    if module[1] == "stages":
        return f"swiftcore/stages/{module[-1]}.py" if module[-1] in STAGES else None
    return f"swiftcore/{module[1]}"


def _files_of(package: str, root: Path) -> list[Path]:
    path = root / package
    files = path.rglob("*") if path.is_dir() else [path.with_suffix(".py")]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


def _shape(node: object) -> object:
    """Return a syntax tree as nested lists that are the same for every version of Python."""
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    filled = [[name, _shape(value)] for name, value in fields.items() if value not in (None, [])]
    return [type(node).__name__, *filled]


if __name__ == "__main__":
    sys.exit(main())
