"""Runs benchmarks with EvalScope, one after another; it writes its own files into `work_dir`."""


def run(job, talk):
    """Evaluate an endpoint on each data set of the job; return the versions that did it."""
    talk.progress(0, len(job["datasets"]), "loading EvalScope")
    from evalscope import TaskConfig, __version__, run_task  # pyright: ignore # not installed here

    for done, (name, arguments) in enumerate(job["datasets"].items()):
        talk.progress(done, len(job["datasets"]), name)
        config = TaskConfig(
            model=job["model"],
            api_url=job["api_url"],
            api_key=job["api_key"],
            eval_type="openai_api",
            datasets=[name],
            dataset_args={name: arguments},
            limit=job["limit"],
            eval_batch_size=job["num_requests"],
            generation_config=job["generation"],
            work_dir=job["out_dir"],
            no_timestamp=True,
            # A failed request is a failed answer, which the report counts, not the end of the run.
            ignore_errors=True,
        )
        run_task(config)
    return {"version": __version__}
