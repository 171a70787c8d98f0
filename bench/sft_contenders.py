"""The training loops that `bench/sft.py` compares, each run in a process of its own.

    PYTHON bench/sft_contenders.py NAME TASK.json

TASK.json names the fixture's folder and the settings that all share. The last line of the output is
JSON: CPU seconds of each step, CPU seconds to the first forward pass of training, peak memory and
losses. Steps are those of torch's global optimizer hook, so every program is timed the same way.

Only the standard library is imported here: ms-swift and LLaMA-Factory have environments of their
own, which know nothing of this project.
"""

import contextlib
import importlib.util
import json
import os
import resource
import runpy
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DROPPED = 2
Task = dict[str, Any]


class Clock:
    """Notes CPU seconds of this process: at the first forward pass, at each optimizer step."""

    def __init__(self) -> None:
        self.first_forward = 0.0
        self.ticks: list[float] = []

    def watch(self) -> None:
        """Be told by torch of what happens; call it once torch is imported."""
        from torch.nn.modules.module import register_module_forward_pre_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def begin(module: Any, _inputs: Any) -> None:
            if module.training and len(list(module.children())) and not self.first_forward:
                self.first_forward = cpu_seconds()
                hook.remove()

        hook = register_module_forward_pre_hook(begin)
        register_optimizer_step_post_hook(lambda *_: self.ticks.append(cpu_seconds()))

    def figures(self, losses: list[float]) -> str:
        """Return the result as a line of JSON; the first steps, which warm up, are left out."""
        return json.dumps(
            {
                "steps": [after - before for before, after in pairwise(self.ticks)][DROPPED - 1 :],
                "first_forward": self.first_forward,
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "losses": losses,
            }
        )


def cpu_seconds() -> float:
    """Return user and system seconds of this process and of children that ended."""
    return sum(os.times()[:4])


def run_project(task: Task, clock: Clock) -> list[float]:
    """Run the training process of the `train` stage."""
    from swiftcore.training import worker
    from swiftcore.training.metrics import read_lines
    from swiftcore.training.workspace import Workspace

    import_libraries = worker._import_libraries

    def watched() -> None:
        import_libraries()
        clock.watch()

    worker._import_libraries = watched
    if worker.main([task["job"], str(os.getppid())]):
        raise SystemExit("the training failed")
    lines = read_lines(Workspace(Path(task["out"]) / "work").metrics)
    return [line["loss"] for line in lines if "loss" in line]


def run_bare(task: Task, clock: Clock) -> list[float]:
    """Train as one would write it down: padded rows, logits of all tokens."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    model, rows = _adapted_model(task).train(), _encoded_rows(task)
    clock.watch()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task["learning_rate"])
    losses = []
    for step in range(task["steps"]):
        batch = rows[step * task["batch"] : (step + 1) * task["batch"]]
        ids, labels = ([torch.tensor(row[key]) for row in batch] for key in ("input_ids", "labels"))
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        loss = model(
            input_ids=pad_sequence(ids, batch_first=True),
            attention_mask=mask,
            labels=pad_sequence(labels, batch_first=True, padding_value=-100),
            use_cache=False,
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run_trainer(task: Task, clock: Clock) -> list[float]:
    """Run transformers' Trainer on the encoded rows."""
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        PreTrainedTokenizerBase,
        Trainer,
        TrainingArguments,
    )

    model, rows = _adapted_model(task), _encoded_rows(task)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(task["model"])
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**_trainer_settings(task)),
        train_dataset=rows,  # pyright: ignore[reportArgumentType]: a list is a dataset to it
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    )
    return _losses_of(trainer, clock)


def run_trl(task: Task, clock: Clock) -> list[float]:
    """Run TRL's SFTTrainer on the encoded rows, with the batches that `task["trl"]` asks for."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        **_trainer_settings(task),
        **task["trl"],
        dataset_kwargs={"skip_prepare_dataset": True},
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = SFTTrainer(
        model=task["model"],
        args=args,
        train_dataset=Dataset.from_list(_encoded_rows(task)),
        peft_config=LoraConfig(**task["lora"], target_modules=LINEAR, task_type="CAUSAL_LM"),
    )
    return _losses_of(trainer, clock)


def run_ms_swift(task: Task, clock: Clock) -> list[float]:
    """Run the `swift sft` of ms-swift on the conversations, inside this process."""
    script = importlib.util.find_spec("swift.cli.sft")
    assert script is not None
    assert script.origin is not None
    settings = {
        "model": task["model"],
        "model_type": "qwen2",
        "template": "qwen2_5",
        "dataset": task["conversations"],
        "tuner_type": "lora",
        "lora_rank": task["lora"]["r"],
        "lora_alpha": task["lora"]["lora_alpha"],
        "lora_dropout": 0,
        "target_modules": "all-linear",
        "torch_dtype": "float32",
        "fp16": "false",
        "bf16": "false",
        "max_length": task["max_tokens"],
        "per_device_train_batch_size": task["batch"],
        "gradient_accumulation_steps": 1,
        "max_steps": task["steps"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": "false",
        "logging_steps": 1,
        "save_strategy": "no",
        "dataloader_num_workers": 0,
        "dataset_num_proc": 1,
        "use_cpu": "true",
        "report_to": "none",
        "check_model": "false",
        "dataset_shuffle": "false",
        "train_dataloader_shuffle": "false",
        "split_dataset_ratio": 0,
        "output_dir": task["out"],
        "add_version": "false",
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    sys.argv = ["swift sft", *flags]
    clock.watch()
    runpy.run_path(script.origin, run_name="__main__")
    lines = (Path(task["out"]) / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    return [found["loss"] for found in map(json.loads, lines) if "loss" in found]


def run_llamafactory(task: Task, clock: Clock) -> list[float]:
    """Run LLaMA-Factory on the conversations."""
    from llamafactory.train.tuner import run_exp

    conversations = Path(task["conversations"])
    described = {
        "rows": {
            "file_name": conversations.name,
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
    }
    file = conversations.with_name("dataset_info.json")
    file.write_text(json.dumps(described), encoding="utf-8")
    clock.watch()
    common = {k: v for k, v in _trainer_settings(task).items() if k != "train_sampling_strategy"}
    run_exp(
        {
            **common,
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": task["model"],
            "template": "qwen",
            "dataset": "rows",
            "dataset_dir": str(conversations.parent),
            "finetuning_type": "lora",
            "lora_rank": task["lora"]["r"],
            "lora_alpha": task["lora"]["lora_alpha"],
            "lora_dropout": 0.0,
            "lora_target": "all",
            "cutoff_len": task["max_tokens"],
            "overwrite_cache": True,
            "disable_shuffling": True,
            "disable_gradient_checkpointing": True,
            "flash_attn": "sdpa",
        }
    )
    lines = (Path(task["out"]) / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [found["loss"] for found in map(json.loads, lines) if "loss" in found]


def _encoded_rows(task: Task) -> list[dict[str, list[int]]]:
    import pyarrow.parquet as pq

    columns = ["input_ids", "labels"]
    rows = pq.read_table(Path(task["encoded"]) / "train.parquet", columns=columns).to_pylist()
    return [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]


def _adapted_model(task: Task) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(task["threads"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    torch.manual_seed(task["seed"])
    return get_peft_model(model, LoraConfig(**task["lora"], target_modules=LINEAR))


def _trainer_settings(task: Task) -> dict[str, Any]:
    return {
        "output_dir": task["out"],
        "per_device_train_batch_size": task["batch"],
        "gradient_accumulation_steps": 1,
        "max_steps": task["steps"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.01,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": task["seed"],
    }


def _losses_of(trainer: Any, clock: Clock) -> list[float]:
    clock.watch()
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


RUNS: dict[str, Callable[[Task, Clock], list[float]]] = {
    "bare": run_bare,
    "project": run_project,
    "trainer": run_trainer,
    "trl": run_trl,
    "ms-swift": run_ms_swift,
    "llamafactory": run_llamafactory,
}


def main(name: str, task_file: str) -> None:
    """Run one of them; its own words go to stderr."""
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    clock = Clock()
    with contextlib.redirect_stdout(sys.stderr):
        losses = RUNS[name](task, clock)
    print(clock.figures(losses), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
