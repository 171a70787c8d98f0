"""The template's settings beside a model: what is served is what was trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftcore.atomic import write_text_synced
from swiftcore.errors import ArtifactDamaged, ModelMissing
from swiftcore.template.custom import definition_from
from swiftcore.template.factory import get_template
from swiftcore.template.template import SETTINGS_SCHEMA, Template

SETTINGS_FILE = "swift_template.json"
_REQUIRED = {"template", "agent_template", "system", "use_chat_template", "loss_scale"}
_REQUIRED |= {"max_length", "truncation_strategy"}


def write_template_settings(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write `Template.settings` into a folder, atomically, and return the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS_FILE
    text = json.dumps(dict(settings), ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    write_text_synced(path, text)
    return path


def read_template_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a model, adapter or encoded folder.

    Raises:
        ModelMissing: the folder has none.
        ArtifactDamaged: the file is not what `write_template_settings` writes.
    """
    path = folder / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ModelMissing(
            "the folder does not say which template its model was trained with",
            where=path,
            found="no such file",
            expected=SETTINGS_FILE,
            do="use a folder written by swift, or build the template with get_template",
        ) from err
    except (ValueError, UnicodeDecodeError) as err:
        raise _damaged(path, str(err)) from err
    if not isinstance(settings, dict) or not _REQUIRED.issubset(settings):
        raise _damaged(path, "settings are missing")
    if settings.get("schema") != SETTINGS_SCHEMA:
        raise _damaged(path, f"schema {settings.get('schema')!r}")
    return settings


def load_template(folder: Path, tokenizer: Any) -> Template:
    """Build the template a folder's model was trained with.

    Raises:
        ModelMissing: the folder has no settings.
        ArtifactDamaged: the settings can't be read.
        UsageError: the tokenizer does not fit the template.
    """
    return template_from_settings(read_template_settings(folder), tokenizer)


def template_from_settings(
    settings: Mapping[str, Any], tokenizer: Any, *, today: str | None = None
) -> Template:
    """Build a template from what `Template.settings` gave.

    Raises:
        UsageError: the tokenizer does not fit the template.
    """
    definition = settings.get("definition")
    return get_template(
        settings["template"]
        if definition is None
        else definition_from(definition, f"{SETTINGS_FILE}: definition"),
        tokenizer,
        agent_template=settings["agent_template"],
        loss_scale=settings["loss_scale"],
        max_length=settings["max_length"],
        truncation_strategy=settings["truncation_strategy"],
        default_system=settings["system"],
        use_chat_template=settings["use_chat_template"],
        today=today,
        allow_control_tokens=settings.get("allow_control_tokens", False),
        # Settings without these keys are from before there were such controls: none was set.
        enable_thinking=settings.get("enable_thinking"),
        preserve_thinking=settings.get("preserve_thinking"),
        add_non_thinking_prefix=settings.get("add_non_thinking_prefix"),
    )


def _damaged(path: Path, found: str) -> ArtifactDamaged:
    return ArtifactDamaged(
        "the template settings can't be used",
        where=path,
        found=found,
        expected=f"settings of schema {SETTINGS_SCHEMA}",
        do="run the template stage again",
    )
