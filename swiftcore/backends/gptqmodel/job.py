"""Quantizes a model folder with GPTQModel, and measures the result; runs in that environment.

Source: Frantar et al. 2023, GPTQ (arXiv:2210.17323); Lin et al. 2024, AWQ (arXiv:2306.00978).
"""

import dataclasses
import importlib.util
import os
import sys


def run(job, talk):
    """Do the task that job["task"] names: quantize or compare."""
    # One worker for each core; its own default starts more than small machines have memory for.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(os.cpu_count() or 1))
    return {"quantize": _quantize, "compare": _compare}[job["task"]](job, talk)


def _quantize(job, talk):
    talk.progress(0, 3, "loading GPTQModel")
    import torch
    from gptqmodel import (
        GPTQModel,
        QuantizeConfig,
        __version__,
    )

    torch.manual_seed(0)
    options = {"bits": job["bits"], "group_size": job["group_size"]}
    if job["method"] == "awq":
        options |= {"quant_method": "awq", "format": "gemm"}
    config = QuantizeConfig(**options)
    model = GPTQModel.load(job["model"], config, device=job["device"])
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["rows"]]
    talk.progress(1, 3, f"{job['method']} with {len(rows)} calibration rows")
    model.quantize(rows, batch_size=job["batch_size"])
    talk.progress(2, 3, "saving")
    model.save(job["out"])
    return {"version": __version__}


def _compare(job, talk):
    """Measure with our own code, which needs torch alone, so that both rooms count alike."""
    import transformers

    talk.progress(0, 1, "answers of both models")
    spec = importlib.util.spec_from_file_location("quality", job["measuring_code"])
    assert spec is not None
    assert spec.loader is not None
    quality = importlib.util.module_from_spec(spec)
    sys.modules["quality"] = quality  # dataclasses look their module up
    spec.loader.exec_module(quality)

    def load(folder):
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", device_map=job["device"], local_files_only=True
        ).eval()

    found = quality.compare(load(job["model"]), load(job["out"]), job["rows"], job["device"])
    return dataclasses.asdict(found)
