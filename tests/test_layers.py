"""The library stands without the orchestrator, and layers point one way."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import REPO

HEAVY = ("prefect", "mlflow", "dvc", "torch", "transformers", "peft", "pyarrow", "fastapi", "boto3")


def imported_by(*modules: str) -> set[str]:
    """Return the top-level modules that a clean process holds after importing some."""
    script = (
        f"import sys\nimport {', '.join(modules)}\nprint(*{{n.split('.')[0] for n in sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_library_brings_no_heavy_package():
    found = imported_by("swiftcore", "swiftcore.recipe", "swiftcore.artifacts", "swiftcore.stages")
    assert "pydantic" in found
    assert not found & set(HEAVY)


def test_modules_that_name_places_import_their_clients_late():
    found = imported_by("swiftcore.artifacts.remote", "swiftcore.stages.plan", "swiftcore.cli.main")
    assert not found & set(HEAVY)


def lint_imports(*arguments: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.is_file():
        pytest.skip("import-linter is not installed: make install brings the development tools")
    return subprocess.run(
        [str(tool), "--no-cache", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_layers_point_one_way():
    done = lint_imports()
    assert done.returncode == 0, done.stdout


def test_import_that_points_upwards_is_found(tmp_path: Path):
    for name, text in {
        "flows/__init__.py": "",
        "tasks/__init__.py": "import prefect\n",
        "swiftcore/__init__.py": "",
        "swiftcore/errors.py": "def late():\n    import prefect\n",
        "swiftcore/stages/__init__.py": "import tasks\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    config = (REPO / "pyproject.toml").read_text().replace("exhaustive = true", "")
    layers = [
        "cli",
        "fine_tuning",
        "rejection_sampling",
        "inference",
        "training | serving | evaluation | export",
        "generation",
        "tuners",
        "template",
    ]
    bottom = "errors : progress : atomic : processes : lazy : scores"
    for layer in (*layers, "models | data | backends | rewards", "artifacts | recipe", bottom):
        config = config.replace(f'    "{layer}",\n', "")
    cut = config.index('[[tool.importlinter.contracts]]\nname = "Export')
    (tmp_path / "pyproject.toml").write_text(config[:cut])
    done = lint_imports(cwd=tmp_path)
    assert done.returncode != 0
    assert "flows, tasks, swiftcore BROKEN" in done.stdout
    assert "data versioner BROKEN" in done.stdout
