"""Runs tasks with lm-eval and writes what it found into `out_dir`: results.json, samples.jsonl."""

import json
import os


def run(job, talk):
    """Evaluate an endpoint on each task of the job; return the version that did it."""
    talk.progress(0, len(job["datasets"]), "loading lm-eval")
    from lm_eval import __version__, simple_evaluate
    from lm_eval.tasks import TaskManager

    os.environ["OPENAI_API_KEY"] = os.environ["BACKEND_API_KEY"]
    os.makedirs(job["out_dir"], exist_ok=True)
    manager = TaskManager()
    results = {}
    with open(os.path.join(job["out_dir"], "samples.jsonl"), "w", encoding="utf-8") as stream:
        for done, (name, settings) in enumerate(job["datasets"].items()):
            talk.progress(done, len(job["datasets"]), name)
            if name not in manager.all_tasks:
                talk.refuse(
                    "UsageError",
                    "lm-eval has no such task",
                    found=name,
                    expected="one of `python -m lm_eval ls tasks`",
                )
            found = _evaluate(simple_evaluate, manager, name, settings, job, talk)
            results[name] = {"results": found["results"], "configs": found["configs"]}
            for task, samples in found["samples"].items():
                for sample in samples:
                    line = {**sample, "benchmark": name, "task": task}
                    stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    with open(os.path.join(job["out_dir"], "results.json"), "w", encoding="utf-8") as stream:
        json.dump(results, stream, indent=2, ensure_ascii=False, default=str)
    talk.progress(len(job["datasets"]), len(job["datasets"]), "done")
    return {"version": __version__}


def _evaluate(simple_evaluate, manager, name, settings, job, talk):
    task = _task(manager, name, settings, job["out_dir"])
    _require_generation(manager, name, task, talk)
    return simple_evaluate(
        model="local-chat-completions",
        model_args={
            "model": job["model"],
            "base_url": job["api_url"] + "/chat/completions",
            "num_concurrent": job["num_requests"],
            "max_retries": job["retries"] + 1,
            "timeout": int(job["timeout_seconds"]),
            "tokenizer_backend": None,
            "tokenized_requests": False,
            "seed": job["seed"],
        },
        tasks=[task],
        task_manager=manager,
        num_fewshot=settings.get("few_shot_num"),
        limit=job["limit"],
        apply_chat_template=True,
        gen_kwargs={
            "max_gen_toks": job["max_tokens"],
            "temperature": job["temperature"],
            "do_sample": job["temperature"] > 0,
            **{"until" if name == "stop" else name: v for name, v in job["sampling"].items()},
        },
        random_seed=job["seed"],
        fewshot_random_seed=job["seed"],
        bootstrap_iters=0,
        log_samples=True,
    )


def _task(manager, name, settings, out_dir):
    """Return the task's name, or a file with its settings changed as the user wants them."""
    changed = {key: value for key, value in settings.items() if key != "few_shot_num"}
    if "local_path" in changed:
        changed["dataset_path"] = changed.pop("local_path")
    if not changed:
        return name
    path = os.path.join(out_dir, name + ".yaml")
    with open(path, "w", encoding="utf-8") as stream:
        # JSON is YAML.
        json.dump(
            {"include": str(manager.task_index[name].yaml_path), "task": name, **changed}, stream
        )
    return path


def _require_generation(manager, name, task, talk):
    loaded = manager.load([task])["tasks"]
    kinds = {key: found.OUTPUT_TYPE for key, found in loaded.items()}
    for key, kind in kinds.items():
        if kind != "generate_until":
            talk.refuse(
                "UsageError",
                "a chat endpoint gives no log-likelihoods, which this task needs",
                found=f"{key} of {name} is of the type {kind}",
                expected="a task of the type generate_until",
                do="use its generative variant, or evaluate it natively by log-likelihood",
            )
