"""Full-parameter training with parts frozen."""

import re
from collections.abc import Callable

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.models.towers import Tower, Towers, find_towers
from swiftcore.recipe.sections import TunerSection

_TOWERS: tuple[Tower, ...] = ("llm", "vit", "aligner")


def apply_freezing(model: nn.Module, section: TunerSection) -> None:
    """Set `requires_grad` of every parameter by the rules of the section, in this order.

    Everything is trainable first; then the first `freeze_parameters_ratio` of all parameters, the
    frozen parts of a multimodal model, the named prefixes and the regex are frozen; then
    `trainable_parameters` and its regex are trained in spite of that.

    Raises:
        UsageError: a prefix or a regex matches no parameter, a regex is none, or a text model has
            no such parts.
    """
    model.requires_grad_(True)
    _freeze_first(model, section.freeze_parameters_ratio)
    towers = require_towers(model, section)
    if towers:
        trained = trained_towers(section)
        for name, parameter in model.named_parameters():
            if towers.part(name) not in trained:
                parameter.requires_grad_(False)
    for prefix in section.freeze_parameters:
        _set(model, False, _starts_with(prefix), "tuner.freeze_parameters", prefix)
    if section.freeze_parameters_regex:
        regex = section.freeze_parameters_regex
        _set(model, False, _matches(regex), "tuner.freeze_parameters_regex", regex)
    for prefix in section.trainable_parameters:
        _set(model, True, _starts_with(prefix), "tuner.trainable_parameters", prefix)
    if section.trainable_parameters_regex:
        regex = section.trainable_parameters_regex
        _set(model, True, _matches(regex), "tuner.trainable_parameters_regex", regex)


def trained_towers(section: TunerSection) -> set[Tower]:
    """Return which parts of a multimodal model the section trains."""
    return {part for part in _TOWERS if not getattr(section, f"freeze_{part}")}


def require_towers(model: nn.Module, section: TunerSection) -> Towers | None:
    """Return the parts of a multimodal model, None for a text model.

    Raises:
        UsageError: the section says what to freeze of a text model, which has no parts.
    """
    towers = find_towers(model)
    fields = type(section).model_fields
    changed = [
        f"freeze_{part}"
        for part in _TOWERS
        if getattr(section, f"freeze_{part}") != fields[f"freeze_{part}"].default
    ]
    if towers is None and changed:
        raise UsageError(
            "only a multimodal model has parts to freeze",
            where="tuner",
            found=f"{', '.join(changed)}, and a text model, {type(model).__name__}",
            do="remove it; freeze_parameters names parts of any model",
        )
    return towers


def _freeze_first(model: nn.Module, ratio: float) -> None:
    """Freeze whole tensors from the first on, as long as they fit into the share."""
    parameters = list(model.parameters())
    budget = int(sum(parameter.numel() for parameter in parameters) * ratio)
    for parameter in parameters:
        budget -= parameter.numel()
        if budget < 0:
            return
        parameter.requires_grad_(False)


def _set(
    model: nn.Module, trainable: bool, chosen: Callable[[str], bool], where: str, rule: str
) -> None:
    matched = [parameter for name, parameter in model.named_parameters() if chosen(name)]
    if not matched:
        some = [name for name, _ in model.named_parameters()]
        raise UsageError(
            "the rule matches no parameter of this model",
            where=where,
            found=rule,
            expected="the start of, or a regex for, names such as " + ", ".join(some[:3]),
            do="correct the rule, or remove it",
        )
    for parameter in matched:
        parameter.requires_grad_(trainable)


def _starts_with(prefix: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix)


def _matches(regex: str) -> Callable[[str], bool]:
    pattern = compile_regex(regex, "tuner")
    return lambda name: pattern.search(name) is not None


def compile_regex(regex: str, where: str) -> re.Pattern[str]:
    """Return the compiled pattern.

    Raises:
        UsageError: it is no regular expression.
    """
    try:
        return re.compile(regex)
    except re.error as err:
        raise UsageError(
            "this is no regular expression", where=where, found=f"{regex}: {err}"
        ) from err
