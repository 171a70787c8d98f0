"""Quantizes a model folder with `lmdeploy lite auto_awq`; runs in the environment of that tool.

Source: Lin et al. 2024, AWQ (arXiv:2306.00978).
"""

import json
import os
import shutil
import tempfile


def run(job, talk):
    """Write the quantized model to job["out"] and return the version of the tool."""
    talk.progress(0, 2, "loading LMDeploy")
    import torch
    from lmdeploy import __version__
    from lmdeploy.lite.apis import auto_awq, calibrate

    with open(os.path.join(job["model"], "config.json"), encoding="utf-8") as stream:
        kind = json.load(stream)["architectures"][0]
    if kind not in calibrate.LAYER_TYPE_MAP:
        talk.refuse(
            "UsageError",
            "LMDeploy does not know this family of models",
            found=kind,
            expected=", ".join(sorted(calibrate.LAYER_TYPE_MAP)),
            do="leave quantize.quant_backend out: gptqmodel writes the same format",
        )
    torch.manual_seed(0)
    blocks = _blocks(torch, job["rows"])
    # It calibrates with data sets of the hub alone.
    calibrate.get_calib_loaders = lambda *names, **settings: blocks
    talk.progress(1, 2, f"awq with {len(blocks)} blocks of {blocks[0].shape[1]} tokens")
    # Beside the model it leaves the statistics of its layers.
    with tempfile.TemporaryDirectory(dir=".") as work:
        auto_awq.auto_awq(
            job["model"],
            work_dir=work,
            calib_samples=len(blocks),
            calib_seqlen=blocks[0].shape[1],
            w_group_size=job["group_size"],
            device=job["device"],
        )
        for name in os.listdir(work):
            if name.endswith((".safetensors", ".json")):
                shutil.move(os.path.join(work, name), os.path.join(job["out"], name))
    talk.progress(2, 2, "done")
    return {"version": __version__}


def _blocks(torch, rows):
    """Return the rows joined and cut into blocks of one length, which the tool stacks."""
    length = max(map(len, rows))
    ids = torch.tensor([token for row in rows for token in row])
    count = len(ids) // length
    return [block[None] for block in ids[: count * length].reshape(count, length)]
