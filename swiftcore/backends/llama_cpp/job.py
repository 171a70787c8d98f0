"""Quantizes a GGUF file with llama.cpp, and lets it read the result; runs in its environment."""


def run(job, talk):
    """Write job["out"] and what the model in it answers; return tokens of texts and the version."""
    talk.progress(0, 3, "loading llama.cpp")
    import llama_cpp
    import numpy

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{job['outtype']}")
    settings.nthread = job["threads"] or 0
    talk.progress(1, 3, f"quantizing to {job['outtype']}")
    code = llama_cpp.llama_model_quantize(job["source"].encode(), job["out"].encode(), settings)
    if code != 0:
        raise RuntimeError(f"llama_model_quantize returned {code}; its words stand above")
    talk.progress(2, 3, "reading the result")
    model = llama_cpp.Llama(
        job["out"],
        n_ctx=max(map(len, job["rows"])),
        n_threads=job["threads"],
        logits_all=True,
        verbose=False,
    )
    logits = []
    for ids in job["rows"]:
        model.reset()
        model.eval(ids)
        logits.append(model.scores[: len(ids)].copy())
    numpy.savez(job["logits"], *logits)
    tokens = [model.tokenize(text.encode(), add_bos=False, special=True) for text in job["texts"]]
    return {"version": llama_cpp.__version__, "tokens": tokens}
