"""Quantizes a model folder with llm-compressor; runs in the environment of that tool.

Source: Frantar et al. 2023, GPTQ (arXiv:2210.17323); Lin et al. 2024, AWQ (arXiv:2306.00978); Xiao
et al. 2023, SmoothQuant (arXiv:2211.10438).
"""

# The output head stays as it is: it is the layer that rounding hurts most, and may be tied.
IGNORED = ["lm_head"]
# Share of an activation's outliers that moves into the weights; the paper's value for Llama.
SMOOTHING = 0.8


def run(job, talk):
    """Write the quantized model to job["out"] and return the version of the tool."""
    talk.progress(0, 3, "loading llm-compressor")
    import torch
    import transformers
    from llmcompressor import __version__, oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        # AWQ in 0.14 pins memory for a copy to a GPU without asking for one.
        IntermediatesCache.pin_memory = lambda self, *arguments, **options: None
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job["model"], dtype="auto", device_map=job["device"], local_files_only=True
    )
    talk.progress(1, 3, f"{job['method']} with {len(job['rows'])} calibration rows")
    modifiers = _modifiers(job["method"], job["bits"], job["group_size"])
    oneshot(model=model, recipe=modifiers, **_calibration(job["rows"]))
    talk.progress(2, 3, "saving")
    model.save_pretrained(job["out"], save_compressed=True)
    return {"version": __version__}


def _calibration(rows):
    if not rows:
        return {}
    import datasets

    columns = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]
    return {
        "dataset": datasets.Dataset.from_list(columns),
        "max_seq_length": max(map(len, rows)),
        "num_calibration_samples": len(rows),
        "shuffle_calibration_samples": False,
    }


def _modifiers(method, bits, group_size):
    from llmcompressor.modifiers.quantization import (
        GPTQModifier,
        QuantizationModifier,
    )

    if method == "fp8":
        return QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=IGNORED)
    if method == "w8a8":
        from llmcompressor.modifiers.transform.smoothquant import (
            SmoothQuantModifier,
        )

        return [
            SmoothQuantModifier(smoothing_strength=SMOOTHING),
            GPTQModifier(targets="Linear", scheme="W8A8", ignore=IGNORED),
        ]
    groups = {"group_0": _weights_only(bits, group_size)}
    if method == "gptq":
        return GPTQModifier(config_groups=groups, ignore=IGNORED)
    from llmcompressor.modifiers.awq import AWQModifier

    return AWQModifier(config_groups=groups, ignore=IGNORED)


def _weights_only(bits, group_size):
    """Symmetric integers: transformers can't load AWQ's zero points in this format."""
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationScheme,
    )

    weights = QuantizationArgs(
        num_bits=bits, type="int", symmetric=True, strategy="group", group_size=group_size
    )
    return QuantizationScheme(targets=["Linear"], weights=weights)
