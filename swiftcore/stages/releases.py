"""From a deploy section to a release: who serves a model, with which settings and adapters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swiftcore.artifacts import Artifact, DigestCache, Store
from swiftcore.backends import open_environment
from swiftcore.backends.tools import serving_tool
from swiftcore.errors import ArtifactDamaged, BackendMissing, SwiftError, UsageError
from swiftcore.models.base_record import refuse_other_base
from swiftcore.models.files import ADAPTER_CONFIG
from swiftcore.recipe import DeploySection, Runtime
from swiftcore.recipe.sections import InferBackend, Recipe, tool_settings
from swiftcore.serving.release import Release, release_fingerprint
from swiftcore.stages.contract import Source, input_ref
from swiftcore.stages.resolve import resolve_reference

# A tool loads, compiles and measures before it answers: minutes, on a CPU.
_TOOL_START_SECONDS = 900.0
# Fields of a deploy section that the server is started with, and a release is known by.
_OF_THE_SERVER = {
    *("max_new_tokens", "max_batch_size", "max_model_len", "max_logprobs"),
    *("served_model_name", "owned_by", "verbose", "log_interval"),
}
_OF_SAMPLING = {"temperature", "top_p", "top_k", "repetition_penalty"}


@dataclass(frozen=True)
class ModelToServe:
    """The files of a model and what they are known by."""

    model_dir: Path
    fingerprint: str
    digest: str
    adapter_dir: Path | None = None


def make_release(
    section: DeploySection,
    model: ModelToServe,
    adapters: Mapping[str, Artifact | Source],
    store: Store,
    runtime: Runtime,
    *,
    version: str,
) -> Release:
    """Return a model as its deploy section wants it served.

    The engine, its settings and the adapters are part of what is released; where transformers
    serves the model alone, the release is known by the model.

    Raises:
        UsageError: an adapter was trained over another base, or an engine needs a whole model.
    """
    if model.adapter_dir is not None and section.infer_backend != "pt":
        raise UsageError(
            f"{section.infer_backend} serves a whole model",
            where="deploy.infer_backend",
            found="an adapter that is to be served as the model",
            expected="a merged model",
            do="add `merge: {}` to the recipe, or use infer_backend pt",
        )
    for found in adapters.values():
        refuse_other_base(model.model_dir, found.path)
    digests = {name: input_ref(each, store.digests).digest for name, each in adapters.items()}
    settings = tool_settings(section)
    endpoint = section.model_dump(include=_OF_THE_SERVER)
    changed = section.model_dump(include=_OF_THE_SERVER, exclude_defaults=True)
    sampling = section.model_dump(include=_OF_SAMPLING, exclude_none=True)
    on_tool = section.infer_backend != "pt"
    return Release(
        fingerprint=release_fingerprint(
            model.fingerprint, section.infer_backend, settings, digests, changed | sampling
        ),
        name=section.name,
        version=version,
        model_dir=model.model_dir,
        adapter_dir=model.adapter_dir,
        digest=model.digest,
        # Our torch may be one for CPUs where the tool's is not.
        device=runtime.device if on_tool else runtime.resolved_device(),
        num_threads=runtime.threads(),
        infer_backend=section.infer_backend,
        backend_settings=settings,
        adapters={name: found.path for name, found in adapters.items()},
        adapter_digests=digests,
        backends_dir=runtime.backends_dir if on_tool else None,
        sampling_defaults=sampling,
        **endpoint,
    )


def named_adapters(section: DeploySection, store: Store) -> dict[str, Artifact | Source]:
    """Return the adapters that are served beside the model, by name.

    Raises:
        UsageError: a folder holds no adapter.
    """
    pairs = (each.split("=", 1) for each in section.adapters)
    return {name: adapter_at(reference, store) for name, reference in pairs}


def adapter_at(reference: str, store: Store) -> Artifact | Source:
    """Return an adapter by its folder, fingerprint or registered version.

    Raises:
        UsageError: the folder holds no adapter.
    """
    found = resolve_reference(reference, store)
    if (found.path / ADAPTER_CONFIG).is_file():
        return found
    raise UsageError(
        "This is no adapter.",
        where="deploy.adapters",
        found=f"{reference}: no {ADAPTER_CONFIG}",
        expected="the folder that training wrote, or artifact:FINGERPRINT",
    )


def start_patience(infer_backend: InferBackend, runtime: Runtime) -> float:
    """Return how many seconds a server may take to be ready."""
    if infer_backend == "pt":
        return runtime.start_timeout_seconds
    return max(runtime.start_timeout_seconds, _TOOL_START_SECONDS)


def require_engine(infer_backend: InferBackend, runtime: Runtime) -> None:
    """Make sure that an engine's tool is there before something long runs for it.

    Raises:
        BackendMissing: it is not installed and may not be, or this machine can't run it.
        UsageError: it does not compute on the runtime's device.
    """
    if infer_backend == "pt":
        return
    device = "auto" if runtime.device == "mps" else runtime.device
    environment = open_environment(serving_tool(infer_backend, device).backend, runtime)
    with environment.in_use(install=runtime.install_backends):
        return


def require_engines(recipe: Recipe, runtime: Runtime, *, until: str = "deploy") -> None:
    """Make sure that the tools which a recipe's evaluation and endpoint need are there.

    Args:
        recipe: what is about to run.
        runtime: where.
        until: the last stage; deploy needs both, evaluate one, the others none.

    Raises:
        BackendMissing, UsageError: as `require_engine`.
    """
    needing = {"evaluate": (recipe.evaluate,), "deploy": (recipe.evaluate, recipe.deploy)}
    for section in needing.get(until, ()):
        if section is not None:
            require_engine(section.infer_backend, runtime)


def missing_engine(recipe: Recipe, runtime: Runtime) -> SwiftError | None:
    """Return what a recipe's tools lack on this machine, and install nothing."""
    try:
        require_engines(recipe, runtime.model_copy(update={"install_backends": False}))
    except (BackendMissing, UsageError) as error:
        return error
    return None


def verify_adapters(store: Store, adapters: Mapping[str, Artifact | Source]) -> None:
    """Read the adapters' files again before they are served.

    Raises:
        ArtifactDamaged: one no longer matches its record.
    """
    for found in adapters.values():
        if isinstance(found, Artifact):
            store.verify(found, thorough=True)


def verify_release(release: Release, store: Store) -> None:
    """Read again what a release serves that was deployed some time ago.

    Raises:
        ArtifactDamaged: a file is not what was served.
    """
    whole = release.adapter_dir or release.model_dir
    digests = {whole: release.digest}
    for name, folder in release.adapters.items():
        digests[folder] = release.adapter_digests.get(name)
    for folder in {release.model_dir, *digests}:
        found = resolve_reference(str(folder), store)
        if isinstance(found, Artifact):
            store.verify(found, thorough=True)
        digest, served = input_ref(found, DigestCache(None)).digest, digests.get(folder)
        if served not in (None, digest):
            raise ArtifactDamaged(
                "This folder changed since it was served.",
                where=folder,
                found=f"digest {digest[:12]}",
                expected=f"digest {served[:12]}",
                do=f"deploy {release.name} again from files you trust; what is served stays",
            )
