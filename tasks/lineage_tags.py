"""Tags that let a person find a run or a model version by what it was made from."""

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts.environment import environment
from swiftcore.stages import Road, Source, StageCall


def stage_tags(call: StageCall, store: Store) -> dict[str, str]:
    """Return the tags of one stage's run."""
    identity = call.identity(store)
    tags = {
        "pipeline.stage": identity.stage,
        "pipeline.recipe": call.recipe.name,
        "pipeline.fingerprint": identity.fingerprint,
        "pipeline.stage_version": str(identity.version),
    }
    for role, ref in identity.inputs.items():
        tags[f"input.{role}".replace("[", ".").replace("]", "")] = ref.digest
    return tags


def code_tags() -> dict[str, str]:
    """Return the state of the code in git."""
    found = environment()
    return {"git.commit": str(found["git_commit"]), "git.dirty": str(found["git_dirty"]).lower()}


def base_tags(road: Road, made: Mapping[str, Artifact]) -> dict[str, str]:
    """Return what the recipe's model started from."""
    name = road.recipe.model.model or "scratch"
    value = road.step("train").resolve(made)
    model = value["model"] if value else None
    fingerprint = model.fingerprint if isinstance(model, Artifact) else ""
    digest = model.digest if isinstance(model, Artifact) else ""
    return {"base.model": name, "base.fingerprint": fingerprint, "base.sha256": digest}


def data_revision(road: Road) -> str:
    """Return the DVC hashes of the recipe's data files; empty where DVC does not track them."""
    sources = road.step("ingest").inputs.values()
    found = {
        source.label: revision
        for source in sources
        if isinstance(source, Source) and (revision := _dvc_hash(source.path))
    }
    return ",".join(f"{label}={revision}" for label, revision in sorted(found.items()))


def _dvc_hash(path: Path) -> str | None:
    pointer = path.with_name(path.name + ".dvc")
    if pointer.is_file():
        return _first_hash(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"])
    for folder in path.absolute().parents:
        lock = folder / "dvc.lock"
        if lock.is_file():
            wanted = os.path.relpath(path.absolute(), folder)
            stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
            outs = [out for stage in stages.values() for out in stage.get("outs", [])]
            return _first_hash([out for out in outs if out["path"] == wanted])
    return None


def _first_hash(outs: list[dict[str, str]]) -> str | None:
    return next((out["md5"] for out in outs if "md5" in out), None)
