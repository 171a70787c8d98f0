"""Quantizes a model folder with AutoAWQ; runs in the environment of that tool.

Source: Lin et al. 2024, AWQ (arXiv:2306.00978).
"""


def run(job, talk):
    """Write the quantized model to job["out"] and return the version of the tool."""
    talk.progress(0, 3, "loading AutoAWQ")
    from importlib.metadata import version

    import torch
    from awq import AutoAWQForCausalLM
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
    from transformers import AutoConfig

    family = AutoConfig.from_pretrained(job["model"], local_files_only=True).model_type
    if family not in AWQ_CAUSAL_LM_MODEL_MAP:
        talk.refuse(
            "UsageError",
            "AutoAWQ does not know this family of models",
            found=family,
            expected=", ".join(sorted(AWQ_CAUSAL_LM_MODEL_MAP)),
            do="leave quantize.quant_backend out: gptqmodel writes the same format",
        )
    torch.manual_seed(0)
    model = AutoAWQForCausalLM.from_pretrained(
        job["model"], device_map=job["device"], trust_remote_code=False, local_files_only=True
    )
    talk.progress(1, 3, f"awq with {len(job['rows'])} calibration rows")
    model.quantize(
        # Rows come as token ids.
        tokenizer=None,
        quant_config={
            "zero_point": True,
            "q_group_size": job["group_size"],
            "w_bit": 4,
            "version": "GEMM",
        },
        calib_data=job["rows"],
        max_calib_samples=len(job["rows"]),
        # It joins the rows and cuts them to this length; longer ones would be left out.
        max_calib_seq_len=max(map(len, job["rows"])),
    )
    talk.progress(2, 3, "saving")
    model.save_quantized(job["out"])
    return {"version": version("autoawq")}
