"""Publishing a model folder on the Hugging Face hub: private unless asked, shown first if asked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftcore.artifacts.record import RECORD_NAME
from swiftcore.errors import EnvironmentMissing, TransientError, UsageError

_CARD = "README.md"
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


@dataclass(frozen=True)
class Publication:
    """What was, or in a dry run would be, uploaded: path -> bytes."""

    repo_id: str
    private: bool
    files: dict[str, int]
    url: str | None


def publish(
    folder: Path,
    repo_id: str,
    *,
    card: str,
    private: bool = True,
    message: str = "update files",
    dry_run: bool = False,
) -> Publication:
    """Upload a folder's files and a model card in one commit.

    The record stays here: it names folders of this machine. The token is HF_TOKEN's alone.

    Args:
        folder: what to upload.
        repo_id: `owner/name`; made if it does not exist.
        card: text of README.md.
        private: who may see a repository; one that is public already is refused then.
        message: of the commit.
        dry_run: say what would be uploaded, and speak to nobody.

    Raises:
        UsageError: the name is none, or the repository is public and private was wanted.
        EnvironmentMissing: there is no token, the hub does not accept it, or is switched off.
        TransientError: the hub can't be reached, or fails.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise UsageError(
            "this is no name of a repository",
            where="hub_model_id",
            found=repo_id,
            expected="owner/name",
            do="give --hub_model_id owner/name",
        )
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_public(path)]
    files = {str(path.relative_to(folder)): path.stat().st_size for path in paths}
    files[_CARD] = len(card.encode())
    if dry_run:
        return Publication(repo_id, private, files, None)
    url = _upload(folder, repo_id, files, card, private=private, message=message)
    return Publication(repo_id, private, files, url)


def _is_public(path: Path) -> bool:
    return path.name not in (RECORD_NAME, _CARD) and not path.name.startswith(".")


def _upload(
    folder: Path, repo_id: str, files: dict[str, int], card: str, *, private: bool, message: str
) -> str:
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=_token())
    contents: dict[str, Any] = {name: folder / name for name in files if name != _CARD}
    contents[_CARD] = card.encode()
    operations = [CommitOperationAdd(name, content) for name, content in sorted(contents.items())]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and api.model_info(repo_id).private is False:
            raise UsageError(
                "the repository is public",
                where=repo_id,
                expected="a private one",
                do="make it private on the hub, or say --hub_private_repo false",
            )
        return str(api.create_commit(repo_id, operations, commit_message=message).commit_url)
    except HfHubHTTPError as err:
        raise _refused(repo_id, err.response.status_code, str(err)) from err
    except OfflineModeIsEnabled as err:
        raise EnvironmentMissing(
            "the hub is switched off",
            where="HF_HUB_OFFLINE",
            found=os.environ.get("HF_HUB_OFFLINE"),
            do="unset HF_HUB_OFFLINE to publish",
        ) from err
    except httpx.HTTPError as err:
        raise TransientError(
            "the hub can't be reached", where=repo_id, found=str(err), do="try again later"
        ) from err


def _token() -> str:
    token = os.environ.get("HF_TOKEN", "")
    if not token:
        raise EnvironmentMissing(
            "publishing needs a token",
            where="HF_TOKEN",
            found="no such environment variable",
            do="make a token that may write on the hub's settings page, and export HF_TOKEN",
        )
    return token


def _refused(repo_id: str, status: int, found: str) -> Exception:
    if _CLIENT_ERROR <= status < _SERVER_ERROR:
        return EnvironmentMissing(
            "the hub refuses the upload",
            where=repo_id,
            found=found,
            expected="a token that may write to this repository",
            do="check HF_TOKEN's rights and --hub_model_id",
        )
    return TransientError("the hub failed", where=repo_id, found=found, do="try again later")
