"""Runs benchmarks with EvalScope, one after another; it writes its own files into `out_dir`."""

import os


def run(job, talk):
    """Evaluate an endpoint on each data set of the job; return the version that did it."""
    talk.progress(0, len(job["datasets"]), "loading EvalScope")
    from evalscope import TaskConfig, __version__, run_task

    for done, (name, settings) in enumerate(job["datasets"].items()):
        talk.progress(done, len(job["datasets"]), name)
        config = TaskConfig(
            model=job["model"],
            api_url=job["api_url"],
            api_key=os.environ["BACKEND_API_KEY"],
            eval_type="openai_api",
            datasets=[name],
            dataset_args={name: settings},
            limit=job["limit"],
            eval_batch_size=job["num_requests"],
            generation_config={
                "max_tokens": job["max_tokens"],
                "temperature": job["temperature"],
                "seed": job["seed"],
                "timeout": job["timeout_seconds"],
                "retries": job["retries"],
                **_sampling(job["sampling"]),
            },
            work_dir=os.path.join(job["out_dir"], name),
            no_timestamp=True,
            # A failed request is a failed answer, which the report counts, not the end of the run.
            ignore_errors=True,
        )
        run_task(config)
    talk.progress(len(job["datasets"]), len(job["datasets"]), "done")
    return {"version": __version__}


def _sampling(given):
    """Return further settings under EvalScope's names."""
    return {"stop_seqs" if name == "stop" else name: value for name, value in given.items()}
