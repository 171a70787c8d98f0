"""Runs benchmarks with OpenCompass; its own files go to `out_dir`, with what it keeps no trace of.

<out>/<benchmark>/predictions/model/<part>.json   prompts and answers
<out>/<benchmark>/results/model/<part>.json       figures, and the grade of each answer
<out>/<benchmark>/told/<part>.json                what the endpoint said of each answer (ours)
"""

import difflib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Files of the user's own, in OpenCompass's forms for them.
OWN_FILES = {"general_qa": "qa", "general_mcq": "mcq"}
SETTINGS = ("local_path", "subset_list", "config")
ROLES = {"HUMAN": "user", "BOT": "assistant", "SYSTEM": "system"}
META_TEMPLATE = {
    "round": [
        {"role": "HUMAN", "api_role": "HUMAN"},
        {"role": "BOT", "api_role": "BOT", "generate": True},
    ],
    "reserved_roles": [{"role": "SYSTEM", "api_role": "SYSTEM"}],
}
# Prompts handed over together for each request that may be open: the pool is seldom idle.
BATCH_PER_REQUEST = 8


def run(job, talk):
    """Evaluate an endpoint on each benchmark of the job; return the version that did it."""
    talk.progress(0, len(job["datasets"]), "loading OpenCompass")
    from mmengine.config import ConfigDict
    from opencompass import __version__
    from opencompass.tasks import OpenICLEvalTask, OpenICLInferTask

    model = {
        "type": _endpoint_class(job),
        "abbr": "model",
        "path": job["model"],
        "batch_size": job["num_requests"] * BATCH_PER_REQUEST,
    }
    asked = {name: _parts(name, given, job, talk) for name, given in job["datasets"].items()}
    for done, (name, parts) in enumerate(asked.items()):
        talk.progress(done, len(asked), name)
        folder = os.path.join(job["out_dir"], name)
        for part in parts:
            order = ConfigDict(
                models=[model],
                datasets=[[part]],
                work_dir=folder,
                eval={"runner": {"task": {"dump_details": True}}},
            )
            task = OpenICLInferTask(order)
            task.run()
            _write(os.path.join(folder, "told", part["abbr"] + ".json"), task.model.told)
            OpenICLEvalTask(order).run()
    talk.progress(len(asked), len(asked), "done")
    return {"version": __version__}


def _endpoint_class(job):
    """Return a model of OpenCompass that asks the endpoint and remembers what it said.

    OpenCompass's own client ends the whole run with the first question that gets no answer, and
    keeps neither lengths nor finish reasons.
    """
    import openai
    from opencompass.models.base_api import BaseAPIModel

    client = openai.OpenAI(
        base_url=job["api_url"],
        api_key=os.environ["BACKEND_API_KEY"],
        timeout=job["timeout_seconds"],
        max_retries=job["retries"],
    )

    class Endpoint(BaseAPIModel):
        def __init__(self, path):
            super().__init__(path=path, meta_template=META_TEMPLATE)
            self.told = []

        def generate(self, inputs, max_out_len):
            with ThreadPoolExecutor(job["num_requests"]) as pool:
                answers = list(pool.map(lambda prompt: self._ask(prompt, max_out_len), inputs))
            self.told += [told for _, told in answers]
            return [text for text, _ in answers]

        def _ask(self, prompt, max_out_len):
            try:
                found = client.chat.completions.create(
                    model=self.path,
                    messages=_messages(prompt),
                    max_tokens=max_out_len,
                    temperature=job["temperature"],
                    extra_body={**job["sampling"], "seed": job["seed"]},
                )
                choice = found.choices[0]
            except (openai.OpenAIError, IndexError, TypeError) as err:
                return "", {"error": f"{type(err).__name__}: {err}"}
            tokens = found.usage.completion_tokens if found.usage else 0
            told = {"finish_reason": choice.finish_reason, "completion_tokens": tokens}
            return choice.message.content or "", told

    return Endpoint


def _messages(prompt):
    """Return OpenCompass's prompt as the endpoint wants it."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": ROLES[item["role"]], "content": item["prompt"]} for item in prompt]


def _parts(name, settings, job, talk):
    """Return the data sets of one benchmark, as OpenCompass's configuration has them."""
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        talk.refuse(
            "UsageError",
            "OpenCompass keeps this setting in its configurations",
            found=f"eval_dataset_args.{name}: {', '.join(unknown)}",
            expected=", ".join(SETTINGS),
            do="choose another of its configurations by name, as config: gsm8k_0shot_gen_a58960",
        )
    if name in OWN_FILES:
        parts = _own_file(name, settings, talk)
    else:
        parts = _configured(settings.get("config") or name + "_gen", talk)
    parts = _chosen(name, parts, settings.get("subset_list"), talk)
    places = {part["path"] for part in parts}
    if "local_path" in settings and len(places) > 1:
        talk.refuse(
            "UsageError",
            "the parts of this benchmark have files of their own",
            found=f"{name} reads {', '.join(sorted(places))}",
            expected="one place for local_path",
            do="name parts that share one in subset_list",
        )
    for part in parts:
        _refuse_other_kinds(name, part, talk)
        if "local_path" in settings:
            part["path"] = os.path.abspath(settings["local_path"])
        if job["limit"]:
            part["reader_cfg"]["test_range"] = f"[:{job['limit']}]"
        part["infer_cfg"]["inferencer"]["max_out_len"] = job["max_tokens"]
        evaluator = part["eval_cfg"]["evaluator"]
        if _name(evaluator["type"]) == "AccEvaluator":
            # The same equality, and the grade of each answer is kept.
            evaluator["type"] = "AccwithDetailsEvaluator"
    return parts


def _own_file(name, settings, talk):
    from mmengine.config import ConfigDict
    from opencompass.datasets.custom import make_custom_dataset_config

    path = settings.get("local_path", "")
    if not path.endswith((".jsonl", ".csv")):
        talk.refuse(
            "UsageError",
            f"{name} asks the questions of a file",
            found=f"eval_dataset_args.{name}.local_path: {path or 'none'}",
            expected="a .jsonl or .csv file with the columns question and answer, and A, B, ... "
            "for choices",
        )
    kind = {"data_type": OWN_FILES[name], "infer_method": "gen"}
    return [ConfigDict(make_custom_dataset_config({"path": path, "abbr": name, **kind}))]


def _configured(wanted, talk):
    import opencompass
    from mmengine.config import Config

    files = sorted((Path(opencompass.__file__).parent / "configs/datasets").rglob("*.py"))
    found = next((file for file in files if file.stem == wanted), None)
    if found is None:
        near = difflib.get_close_matches(wanted, [file.stem for file in files], n=3)
        talk.refuse(
            "UsageError",
            "OpenCompass has no such configuration",
            found=wanted,
            expected=", ".join(near) or "a file's name below opencompass/configs/datasets",
            do="a benchmark NAME is its configuration NAME_gen; config names another",
        )
    config = Config.fromfile(str(found))
    return [part for key in config if key.endswith("_datasets") for part in config[key]]


def _chosen(name, parts, wanted, talk):
    """Return the parts that the user named, by OpenCompass's abbreviation or by their own name."""
    if not wanted:
        return parts
    chosen = [part for part in parts if {part["abbr"], part.get("name")} & set(wanted)]
    if len(chosen) < len(wanted):
        talk.refuse(
            "UsageError",
            "OpenCompass has no such part of this benchmark",
            found=f"eval_dataset_args.{name}.subset_list: {', '.join(wanted)}",
            expected=", ".join(part["abbr"] for part in parts),
        )
    return chosen


def _refuse_other_kinds(name, part, talk):
    kind = _name(part["infer_cfg"]["inferencer"]["type"])
    if kind != "GenInferencer":
        talk.refuse(
            "UsageError",
            "a chat endpoint can only answer in words, and once",
            found=f"{name} is asked with {kind}",
            expected="a configuration with GenInferencer",
            do="choose another of its configurations by config",
        )
    if "judge_cfg" in part["eval_cfg"]["evaluator"]:
        talk.refuse(
            "UsageError",
            "this benchmark needs another model as its judge",
            found=f"{name} is graded with a judge_cfg",
            expected="answers that rules can grade",
            do="choose another of its configurations by config",
        )


def _name(kind):
    """Return the name of a type that a configuration holds as a class or as a dotted name."""
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
