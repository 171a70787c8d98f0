"""Which modules and parameters of a model a tuner goes to: names, a regex, or all of a sort."""

import difflib

from torch import nn

from swiftcore.errors import UsageError
from swiftcore.models.towers import Tower, Towers
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners.freezing import compile_regex, require_towers, trained_towers

ALL_LINEAR = "all-linear"
ALL_EMBEDDING = "all-embedding"
ALL_NORM = "all-norm"
# Output heads: they map to a vocabulary or a score, and are not part of "all-linear".
_HEADS = ("lm_head", "score", "v_head", "classifier")


def target_modules(model: nn.Module, section: TunerSection) -> list[str] | str:
    """Return what a tuner adapts: sorted names of modules, or the regex of the section.

    Of a multimodal model, all-linear are the linear modules of the parts that are not frozen.

    Raises:
        UsageError: a name or the regex matches no module, or a text model has no parts to freeze.
    """
    towers = require_towers(model, section)
    names = [name for name, _ in model.named_modules()]
    if section.target_regex:
        pattern = compile_regex(section.target_regex, "tuner.target_regex")
        if not any(pattern.fullmatch(name) for name in names):
            raise _no_such_module("tuner.target_regex", section.target_regex, model)
        return section.target_regex
    written = section.target_modules
    if towers is None or ALL_LINEAR not in written:
        return named_modules(model, written, "tuner.target_modules")
    rest = [target for target in written if target != ALL_LINEAR]
    inside = _linear_in(model, towers, trained_towers(section))
    return sorted({*inside, *named_modules(model, rest, "tuner.target_modules")})


def named_modules(model: nn.Module, written: list[str], where: str) -> list[str]:
    """Return the names, with all-linear, all-embedding and all-norm spelt out, sorted.

    Raises:
        UsageError: a name matches no module.
    """
    sorts = {ALL_LINEAR: linear_names, ALL_EMBEDDING: embedding_names, ALL_NORM: norm_names}
    names = [name for name, _ in model.named_modules()]
    found: set[str] = set()
    for target in written:
        if target in sorts:
            found.update(sorts[target](model))
            continue
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise _no_such_module(where, target, model)
        found.add(target)
    return sorted(found)


def target_parameters(model: nn.Module, section: TunerSection) -> list[str]:
    """Return the names of the parameters that get an update of their own, such as of experts.

    Raises:
        UsageError: a name matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for target in section.target_parameters:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            near = difflib.get_close_matches(
                target, {_last(name, 3) for name in names}, n=3, cutoff=0
            )
            raise UsageError(
                "the model has no such parameter",
                where="tuner.target_parameters",
                found=target,
                expected="the end of a parameter's name, such as " + ", ".join(near),
                do="name parameters of this model",
            )
    return section.target_parameters


def linear_names(model: nn.Module) -> list[str]:
    """Return the last name parts of all linear modules but the output heads."""
    return sorted(_names_of(model, "linear").difference(_HEADS))


def _linear_in(model: nn.Module, towers: Towers, parts: set[Tower]) -> list[str]:
    """Return the full names of the linear modules in some parts of a multimodal model."""
    return [
        name
        for name, module in model.named_modules()
        if "linear" in type(module).__name__.lower()
        and _last(name) not in _HEADS
        and towers.part(name) in parts
    ]


def embedding_names(model: nn.Module) -> list[str]:
    """Return the last name parts of all modules that look vectors up."""
    found = {
        _last(name) for name, module in model.named_modules() if isinstance(module, nn.Embedding)
    }
    return sorted(found)


def norm_names(model: nn.Module) -> list[str]:
    """Return the last name parts of all normalisation modules."""
    return sorted(_names_of(model, "norm"))


def _names_of(model: nn.Module, word: str) -> set[str]:
    return {
        _last(name)
        for name, module in model.named_modules()
        if word in type(module).__name__.lower()
    }


def _last(name: str, parts: int = 1) -> str:
    return ".".join(name.split(".")[-parts:])


def _no_such_module(where: str, found: str, model: nn.Module) -> UsageError:
    names = {_last(name) for name, _ in model.named_modules() if name}
    near = [*difflib.get_close_matches(found, names, n=3), ALL_LINEAR, *linear_names(model)]
    return UsageError(
        "the model has no such module",
        where=where,
        found=found,
        expected=", ".join(dict.fromkeys(near)),
        do="name modules of this model",
    )
