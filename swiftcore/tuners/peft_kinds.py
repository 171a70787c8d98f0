"""The tuners that peft has: what its configuration is called, and which settings fill it."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from swiftcore.errors import UsageError
from swiftcore.recipe.sections import TunerSection
from swiftcore.tuners import data_starts, targets
from swiftcore.tuners.freezing import compile_regex
from swiftcore.tuners.mutated import changes_base, remember_start
from swiftcore.tuners.shifted_attention import attend_in_groups

# Modules that share one weight in models with tied embeddings.
_EMBEDDINGS = frozenset({"embed_tokens", "lm_head"})
# Second layers of feed-forward blocks, where IA3 scales the input instead of the output.
_FEED_FORWARD_OUT = frozenset({"down_proj", "fc2", "fc_out", "dense_4h_to_h", "w2"})

_Settings = tuple[str, dict[str, Any]]


def _lora(section: TunerSection, total_steps: int) -> _Settings:
    if changes_base(section) and section.use_dora:
        raise UsageError(
            "DoRA's norms are those of the base, which this start changes",
            where="tuner.init_weights",
            found=section.init_weights,
            expected="true, false, gaussian or orthogonal beside use_dora",
            do="leave one of them out",
        )
    return "LoraConfig", {
        "task_type": "CAUSAL_LM",
        "r": section.lora_rank,
        "lora_alpha": section.lora_alpha,
        "lora_dropout": section.lora_dropout,
        "bias": section.lora_bias,
        "use_rslora": section.use_rslora,
        "use_dora": section.use_dora,
        "init_lora_weights": _start(section.init_weights),
        "lora_ga_config": (
            data_starts.gradient_config(section)
            if section.init_weights == data_starts.GRADIENTS
            else None
        ),
    }


def _adalora(section: TunerSection, total_steps: int) -> _Settings:
    if section.adalora_target_r >= section.adalora_init_r:
        raise UsageError(
            "AdaLoRA cuts ranks, so the average at the end is below the one at the start",
            where="tuner.adalora_target_r",
            found=section.adalora_target_r,
            expected=f"less than tuner.adalora_init_r ({section.adalora_init_r})",
            do="change one of them",
        )
    if section.adalora_tinit + section.adalora_tfinal >= total_steps:
        raise UsageError(
            "AdaLoRA has no step left in which to cut ranks",
            where="tuner.adalora_tinit",
            found=f"{section.adalora_tinit} + {section.adalora_tfinal} of {total_steps} steps",
            expected="tinit + tfinal below the number of steps",
            do="lower tuner.adalora_tinit or tuner.adalora_tfinal, or train longer",
        )
    return "AdaLoraConfig", {
        "lora_alpha": section.lora_alpha,
        "lora_dropout": section.lora_dropout,
        "target_r": section.adalora_target_r,
        "init_r": section.adalora_init_r,
        "tinit": section.adalora_tinit,
        "tfinal": section.adalora_tfinal,
        "deltaT": section.adalora_deltaT,
        "beta1": section.adalora_beta1,
        "beta2": section.adalora_beta2,
        "orth_reg_weight": section.adalora_orth_reg_weight,
        "total_step": total_steps,
    }


def _vera(section: TunerSection, total_steps: int) -> _Settings:
    return "VeraConfig", {
        "r": section.vera_rank,
        "save_projection": section.vera_projection_prng_key,
        "vera_dropout": section.vera_dropout,
        "d_initial": section.vera_d_initial,
    }


def _boft(section: TunerSection, total_steps: int) -> _Settings:
    by_number = section.boft_block_num is not None
    return "BOFTConfig", {
        "boft_block_size": 0 if by_number else section.boft_block_size,
        "boft_block_num": section.boft_block_num if by_number else 0,
        "boft_dropout": section.boft_dropout,
    }


def _fourierft(section: TunerSection, total_steps: int) -> _Settings:
    return "FourierFTConfig", {
        "n_frequency": section.fourier_n_frequency,
        "scaling": section.fourier_scaling,
    }


def _miss(section: TunerSection, total_steps: int) -> _Settings:
    return "MissConfig", {"r": section.lora_rank, "init_weights": _start(section.init_weights)}


def _tokens(section: TunerSection, total_steps: int) -> _Settings:
    if not section.peft_args.get("token_indices"):
        raise UsageError(
            "trainable_tokens trains the tokens that it is told",
            where="tuner.peft_args",
            found="no token_indices",
            expected='{"token_indices": [151643, 151644]}, numbers of the tokenizer\'s entries',
            do="name the tokens",
        )
    return "TrainableTokensConfig", {}


def _by_rank(config: str, alpha: str = "", dropout: str = "") -> Callable[..., _Settings]:
    def settings(section: TunerSection, total_steps: int) -> _Settings:
        values: dict[str, Any] = {"r": section.lora_rank}
        if alpha:
            values[alpha] = section.lora_alpha
        if dropout:
            values[dropout] = section.lora_dropout
        return config, values

    return settings


def _plain(config: str, **values: Any) -> Callable[..., _Settings]:
    return lambda section, total_steps: (config, values)


_SETTINGS: dict[str, Callable[..., _Settings]] = {
    "lora": _lora,
    "longlora": _lora,
    "adalora": _adalora,
    "vera": _vera,
    "boft": _boft,
    "fourierft": _fourierft,
    "ia3": _plain("IA3Config"),
    "bone": _miss,
    "miss": _miss,
    "loha": _by_rank("LoHaConfig", "alpha"),
    "lokr": _by_rank("LoKrConfig", "alpha"),
    "oft": _plain("OFTConfig"),
    "hra": _by_rank("HRAConfig"),
    "vblora": _plain("VBLoRAConfig"),
    "randlora": _by_rank("RandLoraConfig"),
    "gralora": _by_rank("GraloraConfig", "alpha", "gralora_dropout"),
    "delora": _by_rank("DeloraConfig"),
    "hira": _by_rank("HiraConfig"),
    "waveft": _plain("WaveFTConfig"),
    "c3a": _plain("C3AConfig"),
    "road": _plain("RoadConfig"),
    "shira": _by_rank("ShiraConfig"),
    "ln_tuning": _plain("LNTuningConfig"),
    "adamss": _plain("AdamssConfig"),
    "frod": _plain("FrodConfig", progressbar=False),
    "pvera": _plain("PveraConfig"),
    "glora": _by_rank("GloraConfig"),
    "unilora": _by_rank("UniLoraConfig"),
    "osf": _plain("OSFConfig"),
    "tinylora": _plain("TinyLoraConfig"),
    "psoft": _by_rank("PsoftConfig"),
    "peanut": _by_rank("PeanutConfig"),
    "supertuning": _plain("SupertuningConfig"),
    "deft": _by_rank("DeftConfig"),
    "trainable_tokens": _tokens,
}


def peft_settings(section: TunerSection, total_steps: int) -> _Settings:
    """Return the name of peft's configuration class and what fills it, but for the places."""
    return _SETTINGS[section.train_type](section, total_steps)


def add_peft(
    model: nn.Module, section: TunerSection, total_steps: int, rows: data_starts.Rows | None = None
) -> nn.Module:
    """Return the model wrapped by peft with a fresh tuner, its weights kept in float32.

    Args:
        model: the base; wrapped, and changed in place.
        section: the tuner's settings.
        total_steps: optimizer steps of the run, by which AdaLoRA plans its ranks.
        rows: training rows, which some starts of LoRA look at.

    Raises:
        UsageError: a target is not in the model, or peft refuses a setting for this model.
    """
    import peft

    name, values = peft_settings(section, total_steps)
    make = getattr(peft, name)
    values |= _places(model, section) | _own_arguments(make, section)
    if not hasattr(model, "prepare_inputs_for_generation"):
        values["task_type"] = None  # texts are scored, so peft need not wrap generation
    try:
        config = make(**values)
        if section.init_weights == data_starts.GRADIENTS:
            data_starts.estimate_gradients(
                model, config, section, data_starts.require_rows(section, rows)
            )
        adapted: Any = peft.get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
        data_starts.forget_gradients(adapted)
        if section.init_weights == data_starts.ACTIVATIONS:
            data_starts.start_from_activations(adapted, data_starts.require_rows(section, rows))
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as err:
        raise UsageError(
            f"peft can't put {section.train_type} on this model with these settings",
            where="tuner",
            found=err,
            do="change the settings that the line above names, or the targets",
        ) from err
    settle_types(adapted, section)
    if section.train_type == "longlora":
        attend_in_groups(adapted.get_base_model())
    if changes_base(section):
        remember_start(adapted)
    return adapted


def settle_types(adapted: nn.Module, section: TunerSection) -> None:
    """Keep what is trained in float32, the matrices of LoRA in the type that the section names.

    In 16 bits a small update of a weight is lost in rounding.
    """
    for name, parameter in adapted.named_parameters():
        if not parameter.requires_grad:
            continue
        if section.lora_dtype is not None and ".lora_" in name:
            parameter.data = parameter.data.to(getattr(torch, section.lora_dtype))
        elif parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def _places(model: nn.Module, section: TunerSection) -> dict[str, Any]:
    """Return where the tuner goes, and what is trained whole beside it."""
    written = section.modules_to_save
    if section.train_type == "longlora":
        written = [*written, targets.ALL_EMBEDDING, targets.ALL_NORM]
    saved = targets.named_modules(model, written, "tuner.modules_to_save")
    own_places = {"ln_tuning": targets.norm_names, "trainable_tokens": targets.embedding_names}
    chosen = (
        own_places[section.train_type](model)
        if section.train_type in own_places
        else targets.target_modules(model, section)
    )
    places: dict[str, Any] = {"target_modules": chosen}
    if saved:
        places["modules_to_save"] = saved
    if section.train_type in ("lora", "longlora"):
        tied = bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))
        touched = set(saved) | (set(chosen) if isinstance(chosen, list) else set())
        places["ensure_weight_tying"] = tied and not _EMBEDDINGS.isdisjoint(touched)
        if section.target_parameters:
            _refuse_beside_parameters(section)
            places["target_parameters"] = targets.target_parameters(model, section)
        _refuse_rank(model, section, chosen)
    if section.train_type == "ia3":
        names = chosen if isinstance(chosen, list) else targets.linear_names(model)
        places["feedforward_modules"] = sorted(_FEED_FORWARD_OUT.intersection(names))
    return places


def _refuse_rank(model: nn.Module, section: TunerSection, chosen: list[str] | str) -> None:
    """Refuse a rank that no matrix has, whose update would hold more numbers than the matrix."""
    largest = 0
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2 or not _is_chosen(name, chosen):
            continue
        # Packed weights of 4 bits have a shape of their own.
        inputs, outputs = (getattr(module, f"{side}_features", 0) for side in ("in", "out"))
        largest = max(largest, min(inputs, outputs) or min(weight.shape))
    if largest and section.lora_rank > largest:
        raise UsageError(
            "the rank is larger than every matrix that it would update",
            where="tuner.lora_rank",
            found=section.lora_rank,
            expected=f"at most {largest}",
            do="lower tuner.lora_rank",
        )


def _is_chosen(name: str, chosen: list[str] | str) -> bool:
    if isinstance(chosen, str):
        return compile_regex(chosen, "tuner.target_regex").fullmatch(name) is not None
    return any(name == target or name.endswith(f".{target}") for target in chosen)


def _refuse_beside_parameters(section: TunerSection) -> None:
    beside = {
        "tuner.lora_dropout": section.lora_dropout > 0,
        "tuner.use_dora": section.use_dora,
        "tuner.lora_bias": section.lora_bias != "none",
    }
    found = [name for name, given in beside.items() if given]
    if found:
        raise UsageError(
            "a parameter that is no module's weight can't have these",
            where="tuner.target_parameters",
            found=", ".join(found),
            do="set tuner.lora_dropout to 0, and leave the others out",
        )


def _own_arguments(make: type, section: TunerSection) -> dict[str, Any]:
    """Return the settings that are passed to peft as they are written."""
    known = {field.name for field in dataclasses.fields(make)}
    for name in section.peft_args:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise UsageError(
                f"peft's {make.__name__} has no such setting",
                where="tuner.peft_args",
                found=name,
                expected=", ".join(near or sorted(known)),
                do="correct the name, or remove it",
            )
    return dict(section.peft_args)


def _start(name: str) -> bool | str:
    return {"true": True, "false": False, data_starts.GRADIENTS: "lora_ga"}.get(name, name)
