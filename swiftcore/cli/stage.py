"""`swift stage`: run one stage and put its result into a folder. DVC's commands are these."""

import json
from collections.abc import Sequence
from pathlib import Path

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts.adopt import adopt, materialize
from swiftcore.artifacts.record import RECORD_NAME
from swiftcore.cli.listener import TerminalListener
from swiftcore.cli.options import Parser, add_recipe, loaded_recipe, print_json
from swiftcore.errors import ArtifactDamaged
from swiftcore.recipe import Runtime
from swiftcore.stages import STAGES, Road, build_road, run_steps
from swiftcore.stages.graph import Step
from swiftcore.stages.releases import require_engines


def main(argv: Sequence[str]) -> int:
    """Make or reuse a stage's artifact, with all it needs, and copy it to --out."""
    parser = Parser(
        "swift stage",
        "Run one stage of a recipe. Upstream artifacts are reused from the store or from folders "
        "beside --out, and made when they are in neither.",
    )
    parser.add_argument("name", choices=[*STAGES, "deploy"], help="the stage")
    add_recipe(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    options = parser.parse_args(argv[1:])
    loaded = loaded_recipe(options)
    store = Store(loaded.runtime.store)
    road = build_road(loaded, store)
    last = "evaluate" if options.name == "deploy" else options.name
    require_engines(loaded.recipe, loaded.runtime, until=options.name)
    steps = road.steps if options.name == "deploy" else road.until(last)
    _adopt_neighbours(store, options.out)
    listener = TerminalListener(quiet=options.json)
    made = run_steps(steps, store, loaded.runtime, listener)
    artifact = made[road.step(last).label]
    if options.name == "deploy":
        _deploy(road, made, store, loaded.runtime, options.out)
    else:
        materialize(artifact, options.out)
    if options.json:
        print_json({"fingerprint": artifact.fingerprint, "digest": artifact.digest})
    return 0


def _adopt_neighbours(store: Store, out: Path) -> None:
    """Take upstream results that DVC checked out beside `out` into the store."""
    for folder in sorted(path.parent for path in out.parent.glob(f"*/{RECORD_NAME}")):
        if folder == out:
            continue
        try:
            adopt(store, folder)
        except ArtifactDamaged as err:
            print(f"  not used: {err.message}")


def _deploy(
    road: Road, made: dict[str, Artifact], store: Store, runtime: Runtime, out: Path
) -> None:
    """Serve what the recipe makes and write down the release."""
    from swiftcore.stages.deploy import deploy_model, served_model

    model = served_model(road, made, _base_folder(road.step("train"), made))
    result = deploy_model(
        road,
        model,
        made[road.step("evaluate").label],
        store,
        runtime,
        version=model.artifact.fingerprint[:12],
    )
    out.mkdir(parents=True, exist_ok=True)
    release = {"fingerprint": model.artifact.fingerprint, "candidate": model.candidate}
    (out / "release.json").write_text(json.dumps(release, indent=2) + "\n", encoding="utf-8")
    print(f"  serving at {result.url}; stop it with: swift deploy --stop")


def _base_folder(train: Step, made: dict[str, Artifact]) -> Path:
    from swiftcore.stages.contract import input_path

    inputs = train.resolve(made)
    assert inputs is not None
    return input_path(inputs["model"])
