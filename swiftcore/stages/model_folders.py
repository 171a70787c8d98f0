"""From a reference to a model that answers: its folders, its template, its engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.errors import UsageError
from swiftcore.models.files import ADAPTER_CONFIG, TEMPLATE_FILE, read_json, require_model_folder
from swiftcore.progress import Progress
from swiftcore.recipe import EvaluateSection, Runtime
from swiftcore.recipe.sections import TemplateSection
from swiftcore.stages.answering_engines import Answering, PromptedEngine, opened_engine
from swiftcore.stages.evaluate import weights_bytes
from swiftcore.stages.resolve import resolve_reference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from swiftcore.template import Template

# A prompt of any length is answered or refused; rows of training may have been cut.
_AS_SERVED = {"max_length": None, "truncation_strategy": "delete"}
_OF_TRAINING = {"loss_scale", "parity_waivers", "custom_template", "template"}


@dataclass(frozen=True)
class ModelFolders:
    """A model folder, perhaps with an adapter over it, and what a person calls them."""

    label: str
    model_dir: Path
    adapter_dir: Path | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the weights on the disk."""
        adapter = 0 if self.adapter_dir is None else weights_bytes(self.adapter_dir)
        return weights_bytes(self.model_dir) + adapter


def find_folders(model: str | None, adapters: list[str], store: Store) -> ModelFolders:
    """Return the folders that references name.

    Args:
        model: a folder, `artifact:...` or `models:/name@alias`; an adapter is one as well, where
            its base can be found.
        adapters: at most one adapter over the model.
        store: where artifacts are.

    Raises:
        UsageError: there are several adapters, or the base of an adapter is not to be found.
    """
    if len(adapters) > 1:
        raise UsageError(
            "One adapter at a time can answer.",
            where="--adapters",
            found=", ".join(adapters),
            expected="one",
            do="ask them one after another",
        )
    references = [reference for reference in (model, *adapters) if reference]
    found = [resolve_reference(reference, store) for reference in references]
    last = found[-1]
    if not (last.path / ADAPTER_CONFIG).is_file():
        if adapters:
            raise UsageError(
                "This is no adapter.",
                where=adapters[0],
                found=f"no {ADAPTER_CONFIG}",
                expected="the folder that training wrote",
            )
        return ModelFolders(references[-1], last.path)
    base = found[0].path if len(found) > 1 else _base_of(last.path, last, store)
    return ModelFolders(references[-1], base, last.path)


def _base_of(adapter: Path, found: object, store: Store) -> Path:
    """Return the base that an adapter was trained over."""
    if isinstance(found, Artifact):
        trained_from = found.record.inputs.get("model")
        if trained_from is not None and trained_from.fingerprint:
            return store.find(trained_from.fingerprint).path
    named = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if named and (Path(named) / "config.json").is_file():
        return Path(named)
    raise UsageError(
        "The base model of an adapter can't be found.",
        where=adapter,
        found=named or "no name of a base",
        expected="the model folder that it was trained over",
        do="give the base with --model and the adapter with --adapters",
    )


@contextmanager
def opened_model(
    folders: ModelFolders,
    template: TemplateSection,
    section: EvaluateSection,
    runtime: Runtime,
    log: Path,
    progress: Progress,
) -> Iterator[PromptedEngine]:
    """Yield a model with the template it was trained with, or the one that a section names.

    Raises:
        BackendMissing, BackendFailed: its tool is not there, or does not start.
    """
    asked = model_to_ask(folders, template)
    with opened_engine(asked, section, runtime, log, progress) as engine:
        yield engine


def model_to_ask(folders: ModelFolders, template: TemplateSection) -> Answering:
    """Return a model with its tokenizer and the template that its prompts are written with.

    Settings of the section are laid over those that the model was trained with; a template of
    another name starts from nothing.

    Raises:
        ModelMissing: there is no model in the folder.
    """
    from swiftcore.models import load_tokenizer

    tokenizer = load_tokenizer(require_model_folder(folders.model_dir))
    written_with = _template(folders, template, tokenizer)
    return Answering(folders.model_dir, folders.adapter_dir, written_with, tokenizer)


def _template(
    folders: ModelFolders, section: TemplateSection, tokenizer: "PreTrainedTokenizerBase"
) -> "Template":
    from swiftcore.template.dataset import resolve_template
    from swiftcore.template.settings import template_from_settings

    settings = _trained_with(folders)
    names_other = section.template is not None or bool(section.custom_template)
    if settings is not None and not names_other:
        given = section.model_dump(exclude_unset=True, exclude=_OF_TRAINING)
        return template_from_settings(settings | _AS_SERVED | given, tokenizer)
    config = read_json(folders.model_dir / "config.json")
    return resolve_template(
        section, tokenizer, method="sft", model_type=config.get("model_type"), max_model_length=None
    )


def _trained_with(folders: ModelFolders) -> dict[str, Any] | None:
    """Return the template settings beside the adapter or the model."""
    from swiftcore.template import read_template_settings

    for folder in (folders.adapter_dir, folders.model_dir):
        if folder is not None and (folder / TEMPLATE_FILE).is_file():
            return read_template_settings(folder)
    return None
