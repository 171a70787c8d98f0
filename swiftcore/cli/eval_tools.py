"""`swift eval --eval_backend NAME`: another tool asks, of a model served for it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.errors import UsageError
from swiftcore.progress import Progress
from swiftcore.recipe import EvaluateSection, Runtime

if TYPE_CHECKING:
    from swiftcore.evaluation.benchmarks.endpoint import EndpointSettings
    from swiftcore.evaluation.report import EvaluationReport
    from swiftcore.stages.model_folders import ModelFolders


def ask_endpoint(
    section: EvaluateSection,
    settings: "EndpointSettings",
    api_key: str | None,
    output_dir: Path,
    runtime: Runtime,
    progress: Progress,
) -> "EvaluationReport":
    """Let the section's tool question an endpoint.

    Raises:
        EnvironmentMissing: nothing answers at the address, or the tool is not installed.
    """
    from swiftcore.evaluation.benchmarks.endpoint import EndpointModel
    from swiftcore.evaluation.tools import ServedModel, evaluate_served

    endpoint = EndpointModel(settings, api_key=api_key)
    served = ServedModel(
        settings.url.rstrip("/").removesuffix("/chat/completions"),
        endpoint.model,
        api_key,
        num_requests=settings.num_concurrent,
        timeout_seconds=settings.timeout_seconds,
        retries=settings.num_retries,
    )
    name = file_name(endpoint.model)
    work = work_dir(output_dir, name)
    report = evaluate_served(section, served, name, work, runtime, progress=progress)
    told = {"endpoint": endpoint.as_dict(), "raw": str(work / "raw")}
    return replace(report, settings=report.settings | told)


def ask_folders(
    section: EvaluateSection,
    folders: "ModelFolders",
    output_dir: Path,
    runtime: Runtime,
    progress: Progress,
) -> "EvaluationReport":
    """Serve a model folder and let the section's tool question it.

    Raises:
        ModelMissing: the folder does not say which template the model was trained with.
    """
    from swiftcore.evaluation.tools import UNLIMITED_TOKENS, ServedModel, evaluate_served
    from swiftcore.serving.temporary import temporarily_served
    from swiftcore.stages.answering_engines import release_to_question
    from swiftcore.stages.releases import start_patience

    name = file_name(folders.label)
    work = work_dir(output_dir, name)
    work.mkdir(parents=True, exist_ok=True)
    release = release_to_question(
        name, folders.model_dir, folders.adapter_dir, section, runtime, UNLIMITED_TOKENS
    )
    seconds = start_patience(section.infer_backend, runtime)
    with temporarily_served(release, work / "server.log", timeout_seconds=seconds) as at:
        served = ServedModel(at.url, name, at.api_key)
        report = evaluate_served(section, served, name, work, runtime, progress=progress)
    told = {"model": {"label": folders.label}, "raw": str(work / "raw")}
    return replace(report, settings=report.settings | told)


def refuse_template(given: object) -> None:
    """Refuse template settings: the served folder says which template it is.

    Raises:
        UsageError: some are given.
    """
    if given:
        raise UsageError(
            "Template settings do nothing when another tool evaluates.",
            where="swift eval",
            found=given,
            expected="a model folder that says its template, as training writes it",
            do="leave them out, or serve the model with them and give --eval_url",
        )


def file_name(label: str) -> str:
    """Return a label as a name of files."""
    kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in label.strip("/"))
    return kept.lstrip("._-")[-80:] or "model"


def work_dir(output_dir: Path, name: str) -> Path:
    """Return a new folder's place for the files of one evaluation's work."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return (output_dir / "jobs" / f"{name}-{stamp}").absolute()
