"""Deploy: the gate decides, then the endpoint switches to the new model without a failed request.

Deploying changes the world instead of making files, so it is no artifact: the endpoint's own state
folder, `<store>/serving/<name>/`, says what is served, what was served before, and why.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.errors import GateRefused, RecipeError
from swiftcore.evaluation.gate import Decision, decide
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import DeploySection, Runtime
from swiftcore.serving import DeployResult, Golden, Release, deploy_release
from swiftcore.stages.graph import Road
from swiftcore.stages.releases import (
    ModelToServe,
    make_release,
    named_adapters,
    require_engine,
    start_patience,
    verify_adapters,
)
from swiftcore.stages.runner import served_candidate

REPORT_NAME = "report.json"
# Rows looked through for golden prompts: some are of several rounds, or cut.
_SEARCHED_ROWS = 64


@dataclass(frozen=True)
class ServedModel:
    """The files that one candidate is served from."""

    candidate: str
    artifact: Artifact
    model_dir: Path
    adapter_dir: Path | None = None


def serving_root(store: Store) -> Path:
    """Return the folder that holds the state of all endpoints."""
    return store.root / "serving"


def served_model(road: Road, made: dict[str, Artifact], base: Path | None) -> ServedModel:
    """Return what the recipe serves.

    Args:
        road: the recipe's steps.
        made: finished artifacts by step label.
        base: folder of the base model; needed when an adapter is served.
    """
    name = served_candidate(road)
    artifact = made[road.step(road.candidates()[name]).label]
    if name != "adapter":
        return ServedModel(name, artifact, artifact.path)
    assert base is not None
    return ServedModel(name, artifact, base, artifact.path)


def judge(
    road: Road, served: str, report: Artifact, champion: dict[str, Any] | None = None
) -> Decision:
    """Return the gate's decision on a candidate.

    Args:
        road: the recipe's steps.
        served: name of the candidate.
        report: artifact of the evaluate stage.
        champion: summary of the model in service, as `champion_summary` gives it.
    """
    document = read_report(report)
    whole = next((n for n in ("merged", "trained") if n in road.candidates()), None)
    return decide(document, _section(road).gate, served, champion, recovery_of=whole)


def read_report(report: Artifact) -> dict[str, Any]:
    """Return the content of an evaluation report."""
    return json.loads((report.path / REPORT_NAME).read_text(encoding="utf-8"))


def deploy_model(
    road: Road,
    model: ServedModel,
    report: Artifact,
    store: Store,
    runtime: Runtime,
    *,
    version: str,
    champion: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> DeployResult:
    """Put a candidate into service if the gate lets it pass.

    Args:
        road: the recipe's steps.
        model: the candidate to serve.
        report: artifact of the evaluate stage that measured it.
        store: verifies the model's files before they are served.
        runtime: address and time limits of the endpoint.
        version: registered version, shown as `<name>@<version>`.
        champion: summary of the model in service.
        progress: told how far the start is.

    Raises:
        GateRefused: a condition does not hold, or the endpoint's answers differ from evaluation.
        BackendMissing: the tool that is to serve is not installed, or can't be here.
        UsageError: an adapter was trained over another base.
        EnvironmentMissing: the port belongs to another program, or the new model doesn't start;
            the old one keeps answering.
    """
    section = _section(road)
    judge(road, model.candidate, report, champion).raise_if_refused()
    require_engine(section.infer_backend, runtime)
    adapters = named_adapters(section, store)
    made = model.artifact
    files = ModelToServe(model.model_dir, made.fingerprint, made.digest, model.adapter_dir)
    release = make_release(section, files, adapters, store, runtime, version=version)

    def verify(_: Release) -> None:
        store.verify(made, thorough=True)
        verify_adapters(store, adapters)

    return deploy_release(
        release,
        state_dir=serving_root(store) / section.name,
        host=runtime.host,
        port=runtime.port,
        golden=lambda: [
            *golden_answers(store, report, model.candidate, section.num_golden),
            *golden_prompts(store, report, model.model_dir, section.num_golden),
        ],
        start_timeout_seconds=start_patience(section.infer_backend, runtime),
        verify=verify,
        progress=progress or Silent(),
    )


def golden_answers(store: Store, report: Artifact, candidate: str, count: int) -> list[Golden]:
    """Return the first answers the candidate gave in evaluation; the endpoint must repeat them.

    The endpoint gets the messages, not the tokens, so this also proves that its template is the
    one that training and evaluation used. Sampled answers can't be repeated: then there are none.
    """
    from swiftcore.data import load_rows
    from swiftcore.evaluation import samples_of_rows

    dataset = store.lookup("ingest", report.record.inputs["dataset"].fingerprint or "").artifact
    if dataset is None or read_report(report)["settings"]["temperature"] > 0:
        return []
    asked = {(s.row_index, s.step): s for s in samples_of_rows(load_rows(dataset.path, "test"))}
    golden: list[Golden] = []
    path = report.path / "samples" / f"{candidate}.jsonl"
    with path.open(encoding="utf-8") as stream:
        for sample in map(json.loads, stream):
            if len(golden) == count:
                break
            if sample["error"] is None and sample["finish_reason"] == "stop":
                row = asked[sample["row"], sample["step"]].prompt_row
                golden.append(
                    Golden(
                        expected=sample["output"],
                        messages=row["messages"],
                        tools=row.get("tools"),
                        max_tokens=sample["completion_tokens"] + 1,
                    )
                )
    return golden


def golden_prompts(store: Store, report: Artifact, model_dir: Path, count: int) -> list[Golden]:
    """Return conversations of the training rows with the tokens that training has for them.

    The prompts are written with training's settings and the served model's tokenizer, and they must
    begin like the encoded rows that were trained on: a tokenizer that changed on the way is seen
    here, a template that changed when the server is asked.

    Raises:
        GateRefused: the served model's tokenizer makes other tokens than training had.
    """
    from swiftcore.data import SplitRows
    from swiftcore.models import load_tokenizer
    from swiftcore.serving.chat import encode_chat, load_serving_template
    from swiftcore.template import load_encoded, read_template_settings

    inputs = report.record.inputs
    dataset = store.lookup("ingest", inputs["dataset"].fingerprint or "").artifact
    encoded = store.lookup("template", inputs["encoded"].fingerprint or "").artifact
    if dataset is None or encoded is None:
        return []
    template = load_serving_template(encoded.path, load_tokenizer(model_dir))
    settings = read_template_settings(encoded.path)
    loses_start = settings["truncation_strategy"] in ("left", "split")
    limit = settings["max_length"] if loses_start else None
    rows = load_encoded(encoded.path, "train")
    found: list[Golden] = []
    for place in range(min(len(rows), _SEARCHED_ROWS)):
        if len(found) == count or not template.options.use_chat_template:
            break
        row = rows[place]
        (source,) = SplitRows(dataset.path, "train").take([row["row"]])
        asked = _one_question(source)
        # Where the prompt counts in the loss too, labels do not tell where it ends.
        start = next((at for at, label in enumerate(row["labels"]) if label != -100), 0)
        is_cut = limit is not None and len(row["input_ids"]) >= limit
        if asked is None or start < 2 or is_cut:
            continue
        ids = encode_chat(template, asked)
        trained = [int(token) for token in row["input_ids"][: min(start, len(ids))]]
        if ids[: len(trained)] != trained:
            raise _other_tokens(model_dir, row["row"], ids, trained)
        found.append(
            Golden(None, messages=asked["messages"], tools=asked["tools"], trained_ids=ids)
        )
    return found


def _one_question(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a row of one round asks; in longer ones some families shorten the history."""
    messages = row["messages"]
    roles = [message["role"] for message in messages]
    plain = roles in (["user", "assistant"], ["system", "user", "assistant"])
    if not plain or row.get("chat_template_kwargs"):
        return None
    asked = [{"role": m["role"], "content": m["content"]} for m in messages[:-1]]
    if not all(isinstance(message["content"], str) for message in asked):
        return None
    return {"messages": asked, "tools": row.get("tools")}


def _other_tokens(model_dir: Path, row: int, ids: list[int], trained: list[int]) -> GateRefused:
    place = next(
        (at for at, (a, b) in enumerate(zip(ids, trained, strict=False)) if a != b),
        min(len(ids), len(trained)),
    )
    return GateRefused(
        "the model to be served has another tokenizer than the one it was trained with",
        where=f"{model_dir}, training row {row}, token {place}",
        found=ids[place : place + 8],
        expected=trained[place : place + 8],
        do="restore the tokenizer files that training used, or train again with these",
    )


def _section(road: Road) -> DeploySection:
    if road.recipe.deploy is None:
        raise RecipeError(
            "The recipe does not deploy anything.",
            where=road.recipe.name,
            found="no deploy section",
            expected="a deploy section with a name and a gate",
            do="add `deploy: {name: my-model}` to the recipe",
        )
    return road.recipe.deploy
