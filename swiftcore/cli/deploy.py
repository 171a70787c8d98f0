"""`swift deploy`: serve a model folder, or look after what is being served."""

import argparse
import hashlib
from collections.abc import Sequence
from typing import Any

from swiftcore.artifacts import Artifact, DigestCache, InputRef, Store
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.cli.status import served_label
from swiftcore.errors import UsageError
from swiftcore.progress import Silent, TerminalProgress
from swiftcore.recipe import DeploySection, Runtime
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.recipe.loading import read_section
from swiftcore.serving import Release
from swiftcore.stages.contract import Source, StageInput, input_ref
from swiftcore.stages.deploy import serving_root
from swiftcore.stages.releases import (
    ModelToServe,
    adapter_at,
    make_release,
    named_adapters,
    require_engine,
    start_patience,
    verify_adapters,
)
from swiftcore.stages.resolve import resolve_reference

_TEXT = """Serve a model behind an OpenAI-compatible endpoint that outlives this command.

  swift deploy --model FOLDER --name mine --port 8766
  swift deploy --model BASE --adapters ADAPTER
  swift deploy --model FOLDER --infer_backend vllm --vllm_max_model_len 4096
  swift deploy --model BASE --infer_backend vllm --adapters law=FOLDER news=FOLDER

Further flags are ms-swift's: --served_model_name, --temperature, --max_new_tokens,
--max_batch_size, --max_model_len, --vllm_..., --sglang_..., --lmdeploy_...; swift args lists them.
The key that clients must send is read from SWIFTCORE_API_KEY."""
# What only a recipe's road can give.
_OF_RECIPES = ("serve", "num_golden", "gate")


def main(argv: Sequence[str]) -> int:
    """Start, show or stop an endpoint."""
    parser = Parser("swift deploy", _TEXT)
    parser.add_argument(
        "--model", help="a model folder, artifact:FINGERPRINT or models:/name@alias"
    )
    parser.add_argument("--name", default="model", help="name of the endpoint")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=8765, help="port; 0 takes a free one")
    parser.add_argument("--status", action="store_true", help="show the endpoints")
    parser.add_argument("--stop", action="store_true", help="stop them all, or the one in --name")
    add_store(parser)
    options, flags = parser.parse_known_args(argv[1:])
    values = recipe_from_flags("deploy", flags)
    store = opened_store(options)
    if options.stop:
        only = options.name if "--name" in argv else None
        return _stop(store, only, as_json=options.json)
    if options.status or not options.model:
        return _status(store, as_json=options.json)
    return _start(store, options, values)


def _start(store: Store, options: argparse.Namespace, values: dict[str, Any]) -> int:
    from swiftcore.serving import deploy_release

    _refuse(values)
    runtime = read_section(Runtime, values.get("runtime", {}), "runtime")
    given = dict(values["deploy"])
    over = _adapter_over(given)
    section = read_section(DeploySection, {**given, "name": options.name}, "deploy")
    require_engine(section.infer_backend, runtime)
    found = resolve_reference(options.model, store)
    ref = input_ref(found, store.digests)
    model, version = _model(options.model, found, ref, over, store)
    adapters = named_adapters(section, store)
    release = make_release(section, model, adapters, store, runtime, version=version)

    def verify(_: Release) -> None:
        verify_unchanged(store, found, ref)
        verify_adapters(store, adapters)

    result = deploy_release(
        release,
        state_dir=serving_root(store) / section.name,
        host=options.host,
        port=options.port,
        start_timeout_seconds=start_patience(section.infer_backend, runtime),
        verify=verify,
        progress=Silent() if options.json else TerminalProgress("deploy"),
    )
    if options.json:
        in_place = result.in_place and result.in_place.as_dict()
        fields = {"url": result.url, "pid": result.pid, "reused": result.reused}
        print_json({**fields, "seconds": round(result.seconds, 3), "in_place": in_place})
    else:
        if result.in_place:
            print(result.in_place.told(result.seconds))
        stop = f"stop it with: swift deploy --stop --name {section.name}"
        print(f"serving {', '.join(release.all_names)} at {result.url}; {stop}")
    return 0


def _refuse(values: dict[str, Any]) -> None:
    """Refuse what would do nothing with a model that is there."""
    idle = [f"--{name}" for part in ("model", "template") for name in values.get(part, {})]
    idle += [f"--{name}" for name in _OF_RECIPES if name in values["deploy"]]
    if idle:
        raise UsageError(
            "A setting does nothing in swift deploy.",
            where="swift deploy",
            found=", ".join(idle),
            expected="settings of the engine and of the endpoint",
            do="a model is served with the template in its folder; a gate judges in a recipe",
        )


def _adapter_over(given: dict[str, Any]) -> str | None:
    """Take an adapter without a name out of the flags: it is served as the model itself."""
    bare = [each for each in given.get("adapters", []) if "=" not in each]
    if not bare:
        return None
    if len(given["adapters"]) > 1:
        raise UsageError(
            "Several adapters need a name each.",
            where="--adapters",
            found=", ".join(given["adapters"]),
            expected="NAME=FOLDER for each, or one FOLDER",
        )
    del given["adapters"]
    return bare[0]


def _model(
    reference: str, found: Artifact | Source, ref: InputRef, over: str | None, store: Store
) -> tuple[ModelToServe, str]:
    """Return what is served, and the version that it is shown with."""
    path = found.path.absolute()
    if not (path / "config.json").is_file():
        raise UsageError(
            "There is no model to serve.",
            where=reference,
            found="no config.json",
            expected="a model folder; an adapter is given with --adapters",
            do="swift status lists the models in the store",
        )
    known = ref.fingerprint or ref.digest
    if over is None:
        return ModelToServe(path, known, ref.digest), known[:12]
    from swiftcore.models.base_record import refuse_other_base

    adapter = adapter_at(over, store)
    refuse_other_base(path, adapter.path)
    above = input_ref(adapter, store.digests)
    both = hashlib.sha256(f"{known}:{above.fingerprint or above.digest}".encode()).hexdigest()
    return ModelToServe(path, both, above.digest, adapter.path.absolute()), both[:12]


def verify_unchanged(store: Store, model: StageInput, ref: InputRef) -> None:
    """Read the model's files again before they are served.

    Raises:
        ArtifactDamaged: an artifact no longer matches its record.
        UsageError: a folder of the user's changed since it was named.
    """
    if isinstance(model, Artifact):
        store.verify(model, thorough=True)
    elif input_ref(model, DigestCache(None)).digest != ref.digest:
        raise UsageError(
            "The model's files are changing while they are about to be served.",
            where=ref.label,
            do="wait until the copy is complete, then deploy again",
        )


def _status(store: Store, *, as_json: bool) -> int:
    from swiftcore.serving import list_endpoints

    endpoints = list_endpoints(serving_root(store))
    if as_json:
        print_json(endpoints)
        return 0
    for name, endpoint in endpoints.items():
        print(f"{name}: {endpoint['status']} at {endpoint['url']}, {served_label(endpoint)}")
    if not endpoints:
        print("nothing is served")
    return 0


def _stop(store: Store, name: str | None, *, as_json: bool) -> int:
    from swiftcore.serving import list_endpoints, stop

    stopped = []
    for found in list_endpoints(serving_root(store)):
        if name in (None, found) and stop(serving_root(store) / found):
            stopped.append(found)
    if as_json:
        print_json({"stopped": stopped})
    else:
        print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was being served")
    return 0
