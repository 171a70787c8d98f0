"""`swift deploy`: serve a model folder, or look after what is being served."""

from collections.abc import Sequence
from pathlib import Path

from swiftcore.artifacts import Artifact, DigestCache, InputRef, Store
from swiftcore.cli.options import Parser, add_store, opened_store, print_json
from swiftcore.cli.status import served_label
from swiftcore.errors import UsageError
from swiftcore.recipe import Runtime
from swiftcore.stages.contract import StageInput, input_ref
from swiftcore.stages.deploy import serving_root
from swiftcore.stages.resolve import resolve_reference


def main(argv: Sequence[str]) -> int:
    """Start, show or stop an endpoint."""
    parser = Parser(
        "swift deploy",
        "Serve a model behind an OpenAI-compatible endpoint that outlives this command.",
    )
    parser.add_argument(
        "--model", help="a model folder, artifact:FINGERPRINT or models:/name@alias"
    )
    parser.add_argument("--name", default="model", help="name of the endpoint")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=8765, help="port; 0 takes a free one")
    parser.add_argument("--status", action="store_true", help="show the endpoints")
    parser.add_argument("--stop", action="store_true", help="stop them all, or the one in --name")
    add_store(parser)
    options = parser.parse_args(argv[1:])
    store = opened_store(options)
    if options.stop:
        only = options.name if "--name" in argv else None
        return _stop(store, only, as_json=options.json)
    if options.status or not options.model:
        return _status(store, as_json=options.json)
    return _start(store, options.model, options.name, options.host, options.port, options.json)


def _start(store: Store, reference: str, name: str, host: str, port: int, as_json: bool) -> int:
    from swiftcore.serving import Release, deploy_release

    found = resolve_reference(reference, store)
    path = found.path if isinstance(found, Artifact) else Path(found.path)
    if not (path / "config.json").is_file():
        raise UsageError(
            "There is no model to serve.",
            where=reference,
            found="no config.json",
            expected="a model folder; merge an adapter first",
            do="swift status lists the models in the store",
        )
    ref = input_ref(found, store.digests)
    runtime = Runtime()
    release = Release(
        fingerprint=ref.fingerprint or ref.digest,
        name=name,
        version=(ref.fingerprint or ref.digest)[:12],
        model_dir=path.absolute(),
        adapter_dir=None,
        digest=ref.digest,
        device=runtime.resolved_device(),
        num_threads=runtime.threads(),
    )
    result = deploy_release(
        release,
        state_dir=serving_root(store) / name,
        host=host,
        port=port,
        start_timeout_seconds=runtime.start_timeout_seconds,
        verify=lambda _: verify_unchanged(store, found, ref),
    )
    if as_json:
        print_json({"url": result.url, "pid": result.pid})
    else:
        print(f"serving {name} at {result.url}; stop it with: swift deploy --stop --name {name}")
    return 0


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
