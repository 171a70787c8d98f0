"""Every command in the docs is run, in a small copy of the project, in the order it is written.

Blocks marked `sh` are commands; blocks marked `text` are shapes to fill in. A command that another
test or CI itself runs is named in `ELSEWHERE` with the place.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.roads import REPO, swift_here, tiny_recipes

pytestmark = pytest.mark.road

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
ELSEWHERE = {
    "make install": "the first thing .ci/run does",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "make demo": "tests/test_flows_whole.py runs the same flow on a tiny recipe",
    "make repro": "tests/test_dvc.py runs dvc repro on a tiny recipe",
    "make bench": "measured by hand, docs/benchmarks.md",
    "source .venv/bin/activate": "the tests run inside the environment",
}
# The rest of `swift` starts or ends servers. A process of its own would import the libraries again.
IN_THIS_PROCESS = {
    *("args", "compare", "dataset", "gc", "lineage", "plan", "run"),
    *("stage", "status", "template", "verify"),
}


def commands(page: Path) -> list[str]:
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.split(r"\s{2,}#|\s+# ", line)[0].strip()
            if command and not command.startswith("#"):
                found.append(command)
    return found


def links(page: Path) -> list[str]:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    return [target for target in targets if "://" not in target]


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
    finished_store: Path,
    empty_mlflow: Path,
    prefect_api: str,
):
    """A folder like the repository, with tiny recipes, after two runs of the road.

    What they would make is there already: each registers and serves another candidate.
    """
    folder = tmp_path_factory.mktemp("docs")
    tiny_recipes(folder, base_name="nano_base", name="demo")
    for recipe in (folder / "recipes").glob("*.yaml"):
        text = recipe.read_text().replace(f"{folder}/store", ".swift/store")
        recipe.write_text(text.replace(f"{folder}/", ""))
    shutil.copytree(finished_store, folder / ".swift/store")
    shutil.copy(empty_mlflow, folder / ".swift/mlflow.db")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_API_URL", prefect_api)
        for candidate in ("adapter", "merged"):
            done = run(f"swift run recipes/demo.yaml --set deploy.serve={candidate}", folder)
            assert done.returncode == 0, done.stderr
        yield folder
        run("swift deploy --stop", folder)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    if program == "swift" and arguments[0] in IN_THIS_PROCESS:
        return swift_here(*arguments, cwd=folder)
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_work_as_written(page: Path, request: pytest.FixtureRequest) -> None:
    wanted = [command for command in commands(page) if command not in ELSEWHERE]
    if not wanted:
        return
    folder = request.getfixturevalue("workspace")
    for command in wanted:
        done = run(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
