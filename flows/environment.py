"""Where Prefect and MLflow keep their things, decided before either is imported."""

import os
import tomllib
from pathlib import Path

STATE = Path(".swift")


def prepare_environment(state: Path = STATE) -> None:
    """Set what the user has not set: no analytics, quick answers, state beside the project.

    A Prefect server named in PREFECT_API_URL or in the active profile is used as it is; without
    one, Prefect's database lies in `<state>/prefect`, so that removing the folder removes all.

    Args:
        state: folder for everything that is kept between runs.
    """
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_LOGGING_LEVEL": "INFO",
        # Found no git executable is no reason for a warning page in the logs.
        "GIT_PYTHON_REFRESH": "quiet",
    }
    if server_url() is None:
        defaults["PREFECT_HOME"] = str((state / "prefect").absolute())
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def server_url() -> str | None:
    """Return the address of the Prefect server the user has chosen, if one was chosen."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
    return profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
