"""Evaluate with a tool of its own environment: its files as inputs, candidates served for it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.artifacts import DigestCache
from swiftcore.artifacts.digests import folder_digest
from swiftcore.errors import UsageError
from swiftcore.models.files import TEMPLATE_FILE
from swiftcore.recipe import EvaluateSection
from swiftcore.stages.answering_engines import release_to_question
from swiftcore.stages.contract import Source, StageRun
from swiftcore.stages.releases import start_patience

if TYPE_CHECKING:
    from swiftcore.evaluation import Candidate
    from swiftcore.evaluation.tools import ServedModel, ToolBenchmarks

_ROLE = "{name}/files"


def tool_inputs(section: EvaluateSection) -> dict[str, Source]:
    """Return the folders of a tool's benchmarks as inputs, by role `benchmark/files`.

    Raises:
        UsageError: a benchmark has no folder; what a tool downloads could change unseen.
    """
    found = {}
    for name in section.eval_dataset:
        place = section.eval_dataset_args.get(name, {}).get("local_path")
        if place is None:
            raise UsageError(
                f"{section.eval_backend} would have to download {name}",
                where=f"evaluate.eval_dataset_args.{name}",
                found="no local_path",
                expected="a folder with the benchmark's files, which the fingerprint covers",
                do="download it there once, and name the folder",
            )
        found[_ROLE.format(name=name)] = Source(Path(place), name)
    return found


def tool_benchmarks(
    run: StageRun, section: EvaluateSection, before_serving: Callable[[], None]
) -> "ToolBenchmarks":
    """Return the section's benchmarks over the inputs of a run.

    Args:
        run: inputs and places.
        section: what is asked.
        before_serving: called before a candidate is served, to make room for it.
    """
    from swiftcore.evaluation.tools import ToolBenchmarks

    places = {name: run.inputs[_ROLE.format(name=name)] for name in section.eval_dataset}
    settings = {
        name: {**section.eval_dataset_args[name], "local_path": str(place.absolute())}
        for name, place in places.items()
    }
    digests = DigestCache(None)
    return ToolBenchmarks(
        section.model_copy(update={"eval_dataset_args": settings}),
        _Serving(run, section, before_serving).serve,
        run.area.work / "jobs",
        run.area.out / "raw",
        run.runtime,
        {name: folder_digest(place, digests) for name, place in places.items()},
    )


class _Serving:
    """Serves candidates with the template that training used, as the native evaluation does."""

    def __init__(
        self, run: StageRun, section: EvaluateSection, before_serving: Callable[[], None]
    ) -> None:
        self._run, self._section, self._before_serving = run, section, before_serving

    @contextlib.contextmanager
    def serve(self, candidate: "Candidate") -> "Iterator[ServedModel]":
        """Serve one candidate on a port of its own."""
        from swiftcore.evaluation.tools import UNLIMITED_TOKENS, ServedModel
        from swiftcore.serving.temporary import temporarily_served

        self._before_serving()
        folder = self._run.area.work / "served" / candidate.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        runtime = self._run.runtime
        adapter_dir = candidate.adapter_dir
        release = release_to_question(
            candidate.name,
            self._templated(candidate.model_dir, folder / "model"),
            adapter_dir and self._templated(adapter_dir, folder / "adapter"),
            self._section,
            runtime,
            UNLIMITED_TOKENS,
        )
        log = folder / "server.log"
        seconds = start_patience(self._section.infer_backend, runtime)
        with temporarily_served(release, log, timeout_seconds=seconds) as served:
            yield ServedModel(served.url, candidate.name, served.api_key)

    def _templated(self, folder: Path, view: Path) -> Path:
        """Return a folder of links to a model's files, with the template of the run."""
        view.mkdir()
        for file in folder.iterdir():
            if file.name != TEMPLATE_FILE:
                os.symlink(file.absolute(), view / file.name)
        shutil.copyfile(self._run.inputs["encoded"] / TEMPLATE_FILE, view / TEMPLATE_FILE)
        return view
