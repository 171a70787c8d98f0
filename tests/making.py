"""Small artifacts for tests of the artifact layer, made in this process or in others."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from swiftcore.artifacts import Identity, InputRef, Outcome, Produced, Store, WorkArea, make

REPO = Path(__file__).parent.parent


def identity(
    stage: str = "train", name: str = "demo", version: int = 1, **config: object
) -> Identity:
    return Identity(stage, version, name, config)


def made_from(*inputs: Outcome, stage: str = "merge", name: str = "demo") -> Identity:
    refs = {
        f"input{index}": InputRef(one.artifact.digest, one.artifact.fingerprint, one.artifact.label)
        for index, one in enumerate(inputs)
    }
    return Identity(stage, 1, name, {}, refs)


def writes(text: str = "weights", file: str = "model.bin") -> Callable[[WorkArea], Produced]:
    def body(area: WorkArea) -> Produced:
        path = area.out / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return Produced(metrics={"loss": 0.5})

    return body


def must_not_run(area: WorkArea) -> Produced:
    raise AssertionError("the body ran although a verified artifact was there")


def make_demo(store: Store, text: str = "weights", **options) -> Outcome:
    return make(store, identity(), writes(text), **options)


def settle(store: Store) -> None:
    """Wait until files are old enough for their digests to be remembered."""
    time.sleep(2.1)
    for artifact in store.artifacts():
        store.verify(artifact)


PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from swiftcore.artifacts import Produced, Store, make
from swiftcore.artifacts.lease import hold
from tests.making import identity, writes
store = Store(Path(sys.argv[1]))
"""


def python(script: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """Start a process that runs a script after the usual imports; `store` is its first argument."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)
