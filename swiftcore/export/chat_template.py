"""What an exported folder tells other engines: its chat template and the tokens that end an answer.

Our server reads swift_template.json. transformers, vLLM and the like read chat_template.jinja and
generation_config.json, and must come to the same tokens.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.models.files import TEMPLATE_FILE, read_json, write_json

if TYPE_CHECKING:
    from swiftcore.template import Template

CHAT_TEMPLATE_FILE = "chat_template.jinja"


def complete_chat_files(folder: Path) -> str:
    """Write the chat template and stop tokens that belong to a folder's template settings.

    The model's own chat template stays where it gives the tokens that training used. Otherwise one
    made from the registered family takes its place, if it is shown to give them.

    Returns:
        What became of the chat template, in words.
    """
    if not (folder / TEMPLATE_FILE).is_file():
        return "as it was: the folder does not say how it was trained"
    from swiftcore.models import load_tokenizer
    from swiftcore.template import load_template

    template = load_template(folder, load_tokenizer(folder))
    _write_stop_tokens(folder, template)
    if not template.options.use_chat_template:
        return "none is needed: the model continues plain text"
    return _complete_chat_template(folder, template)


def _complete_chat_template(folder: Path, template: "Template") -> str:
    from swiftcore.template.family import FamilyTemplate
    from swiftcore.template.jinja.writer import gives_same_tokens, write_chat_template

    if not isinstance(template, FamilyTemplate):
        return "the model's own, which training used"
    own = template.tokenizer.chat_template
    if own and gives_same_tokens(template, own, with_tools=True):
        return "the model's own, equal to the template of training"
    source, has_tools = write_chat_template(template)
    if own and not has_tools and gives_same_tokens(template, own, with_tools=False):
        return "the model's own, equal to the template of training except with tools"
    if source is None:
        kept = "the model's own, which differs from training" if own else "none"
        return f"{kept}: template {template.name!r} can't be written as one; serve with swift"
    (folder / CHAT_TEMPLATE_FILE).write_text(source + "\n", encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if config.is_file() and "chat_template" in (settings := read_json(config)):
        # Older files hold it there, and some readers prefer that place.
        del settings["chat_template"]
        write_json(config, settings)
    without = "" if has_tools else ", without tools"
    return f"written from template {template.name!r}{without}"


def _write_stop_tokens(folder: Path, template: "Template") -> None:
    path = folder / "generation_config.json"
    settings = read_json(path) if path.is_file() else {}
    known = settings.get("eos_token_id")
    before = known if isinstance(known, list) else [] if known is None else [known]
    tokens = list(dict.fromkeys([*before, *template.stop_token_ids]))
    if tokens and tokens != before:
        settings["eos_token_id"] = tokens if len(tokens) > 1 else tokens[0]
        write_json(path, settings)
