"""Values that ms-swift or peft know and a recipe refuses, each with its reason."""

from typing import Any

_VIRTUAL_TOKENS = (
    "it trains virtual tokens in front of each prompt, which no weight of the model can take in"
)
REFUSED_TUNERS = {
    "prompt_tuning": _VIRTUAL_TOKENS,
    "multitask_prompt_tuning": _VIRTUAL_TOKENS,
    "p_tuning": _VIRTUAL_TOKENS,
    "prefix_tuning": _VIRTUAL_TOKENS,
    "cpt": _VIRTUAL_TOKENS,
    "cartridge": _VIRTUAL_TOKENS,
    "adaption_prompt": "it adds prompts inside attention, of Llama and Mistral alone, that don't "
    "merge",
    "beft": "peft merges it only into layers that have a bias; lora with lora_bias all trains them",
    "lily": "its matrices depend on the input, so it doesn't merge",
    "poly": "it needs a task number with each row",
    "xlora": "it mixes finished adapters and trains none",
    "shadow": "peft's module does not pass through the attention of today's transformers",
    "lora_llm": "an example plug-in for multimodal models; train_type lora with the towers in "
    "modules_to_save does that",
    "dummy": "an example plug-in that trains nothing",
}
_TREE_SEARCH = (
    "ms-swift 4 dropped its tree search as well; sampler_type sample with prm_model ranks whole "
    "answers"
)
_REFUSED: dict[str, dict[str, str]] = {
    "sampler_type": {"mcts": _TREE_SEARCH, "dvts": _TREE_SEARCH},
    "train_type": REFUSED_TUNERS,
    "tuner_backend": {
        "unsloth": "it starts only on a GPU and replaces the code of transformers; "
        "train.fold_lora and train.label_logits save the same work"
    },
    "quant_method": {
        "hqq": "it needs a GPU and has no checkpoint format; bnb does the same",
        "eetq": "it needs a GPU; bnb with quant_bits 8 does the same",
        "quanto": "it has no checkpoint format; bnb does the same",
        "fp8": "it needs a GPU, and its weights can't be trained over; use bnb",
    },
    "eval_backend": {
        "VLMEvalKit": "its benchmarks ask about pictures and video",
    },
    "lora_dtype": {
        "float16": "gradients of float16 weights overflow and can't be scaled back; "
        "float32 is trained under float16 autocast as well"
    },
}


def refuse_value(field: str | None, value: Any) -> None:
    """Raise for a value of a field that is refused by name.

    Raises:
        ValueError: with the reason.
    """
    why = _REFUSED.get(field or "", {}).get(value) if isinstance(value, str) else None
    if why:
        raise ValueError(f"{field} {value!r} is refused: {why}")
