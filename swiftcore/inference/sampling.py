"""How answers are generated: what was asked for, else what the model's folder recommends."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.generation import SamplingParams
from swiftcore.models.files import read_json
from swiftcore.recipe.sections import InferSection

_FILE = "generation_config.json"
# What a setting is when nobody says anything: it changes nothing.
_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}


@dataclass(frozen=True)
class ChosenSampling:
    """Settings of generation, and where each came from.

    Args:
        params: the settings.
        origins: "flag", "generation_config.json" or "default", by the setting's name.
    """

    params: SamplingParams
    origins: dict[str, str]

    def describe(self) -> str:
        """Return one line for the log."""
        told = [
            f"{name} {getattr(self.params, name):g} ({origin})"
            for name, origin in self.origins.items()
        ]
        return ", ".join(told)


def choose_sampling(section: InferSection, model_dir: Path) -> ChosenSampling:
    """Return how a section and a model's folder want answers to be generated.

    A model whose folder does not ask for sampling (`do_sample`) is greedy until a temperature is
    given. Values that a folder doesn't state change nothing, whatever a library's default is.

    Raises:
        UsageError: a setting of the section would do nothing.
    """
    recommended = _recommended(model_dir)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, neutral in _NEUTRAL.items():
        given = getattr(section, name)
        stated = recommended.get(name)
        values[name] = given if given is not None else neutral if stated is None else stated
        origins[name] = "flag" if given is not None else "default" if stated is None else _FILE
    samples = recommended.get("do_sample") is True
    if section.temperature is None and not samples:
        values["temperature"] = 0.0
        origins["temperature"] = _FILE if "do_sample" in recommended else "default"
    values["top_k"] = int(values["top_k"])
    if values["top_k"] == 1:
        values["temperature"] = 0.0
    if values["temperature"] == 0:
        _refuse_idle(section)
        values |= {"top_k": 0, "top_p": 1.0}
        origins = {name: origins[name] for name in ("temperature", "repetition_penalty")}
    params = SamplingParams(
        **values,
        max_new_tokens=section.max_new_tokens or SamplingParams.max_new_tokens,
        kept_stop=tuple(section.stop_words),
        seed=section.seed,
        logprobs=section.logprobs,
        top_logprobs=section.top_logprobs or 0,
    )
    return ChosenSampling(params, origins)


def with_room(params: SamplingParams, section: InferSection, max_model_len: int) -> SamplingParams:
    """Return the settings with answers as long as the model can hold, unless a length was given."""
    return replace(params, max_new_tokens=section.max_new_tokens or max_model_len)


def _recommended(model_dir: Path) -> dict[str, Any]:
    file = model_dir / _FILE
    found = read_json(file) if file.is_file() else {}
    for name in _NEUTRAL:
        value = found.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(
                "A setting in the model's folder is no number.",
                where=f"{file}: {name}",
                found=value,
                do=f"mend the file, or give --{name}",
            )
    return found


def _refuse_idle(section: InferSection) -> None:
    idle = []
    if section.top_p not in (None, 1):
        idle.append(f"--top_p {section.top_p:g}")
    if section.top_k not in (None, 0, 1):
        idle.append(f"--top_k {section.top_k}")
    if idle:
        raise UsageError(
            "A setting of sampling does nothing where the likeliest token is always taken.",
            where="swift infer",
            found=", ".join(idle),
            expected="a temperature above 0; the model's folder asks for none",
            do="add --temperature 1, or leave the setting out",
        )
