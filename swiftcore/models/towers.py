"""The parts of a multimodal model: language model, encoders of pictures or sound, and the aligner.

They are found by how transformers builds such a model, not by a list of families. Its parts are
models themselves, each with a configuration of its own. The one with the text configuration is the
language model, and the output head belongs to it; the others are encoders. What has weights and
stands between is the aligner. Some encoders hold it themselves, as a last module that merges
patches (Qwen-VL, GLM-V).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Tower = Literal["llm", "vit", "aligner"]
# Ends of class names of aligners that an encoder holds.
_HELD_ALIGNERS = ("Merger", "Projector")


@dataclass(frozen=True)
class Towers:
    """Names of the modules, or parameters, that each part consists of; the longest match counts."""

    llm: tuple[str, ...]
    vit: tuple[str, ...]
    aligner: tuple[str, ...]

    def part(self, name: str) -> Tower:
        """Return which part a module or parameter belongs to; what nobody claims, as the head, is
        the language model's."""
        claims: list[tuple[int, Tower]] = [(0, "llm")]
        for part in ("llm", "vit", "aligner"):
            for prefix in getattr(self, part):
                if name == prefix or name.startswith(f"{prefix}."):
                    claims.append((len(prefix), part))
        return max(claims)[1]


def find_towers(model: Any) -> Towers | None:
    """Return the parts of a multimodal model, None for a text model."""
    config: Any = getattr(model, "config", None)
    # Modules that are no model of transformers have no configuration of this kind.
    text = config.get_text_config() if hasattr(config, "get_text_config") else None
    if config is None or text is None or text is config:
        return None
    parts = list(_parts(model, "", type(config)))
    encoders = [(name, part) for name, part in parts if _is_encoder(part, type(text))]
    if not encoders:
        return None
    vit = tuple(name for name, _ in encoders)
    llm = tuple(name for name, part in parts if _has_config(part, type(text)))
    held = (f"{name}.{inner}" for name, part in encoders for inner in _held_aligners(part))
    between = (name for name in _between(model, {*vit, *llm}))
    return Towers(llm, vit, tuple(dict.fromkeys([*between, *held])))


def _parts(module: nn.Module, prefix: str, whole: type) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost models inside a model whose configuration is of another class."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        inner = getattr(child, "config", None)
        if inner is not None and not isinstance(inner, whole) and _is_model(child):
            yield path, child
        else:
            yield from _parts(child, f"{path}.", whole)


def _is_model(module: nn.Module) -> bool:
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel)


def _has_config(part: Any, kind: type) -> bool:
    return type(part.config) is kind


def _is_encoder(part: Any, text: type) -> bool:
    return not _has_config(part, text)


def _held_aligners(encoder: nn.Module) -> Iterator[str]:
    for name, child in encoder.named_children():
        inner = child[0] if isinstance(child, nn.ModuleList) and len(child) else child
        if type(inner).__name__.endswith(_HELD_ALIGNERS):
            yield name


def _between(model: Any, parts: set[str]) -> Iterator[str]:
    """Yield the modules and parameters with weights outside the parts and the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    holders = {name.rpartition(".")[0] for name in parts}
    for holder in sorted(holders):
        module = model.get_submodule(holder)
        for name, _ in module.named_parameters(recurse=False):
            yield f"{holder}.{name}".lstrip(".")
        for name, child in module.named_children():
            path = f"{holder}.{name}".lstrip(".")
            inside = any(part == path or part.startswith(f"{path}.") for part in parts)
            if child is not head and not inside and any(True for _ in child.parameters()):
                yield path
