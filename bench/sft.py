"""What a LoRA step costs, beside a bare loop of torch, transformers and peft.

    python bench/sft.py small [--rounds 3] [--steps 12] [--threads 1] [--variants bare,project,...]

`small` is a random Qwen2 of 5 million parameters with a vocabulary of 4,096 of its own, `vocab` one
of 31 million, 29 of them in the head of the real Qwen vocabulary. Rows are GSM8K's first of at most
512 tokens, loss on answers; batches of 8 rows in file order, LoRA of rank 8 on all linear layers.

Every variant trains in a process of its own, one after the other, round after round: the bare loop
as one would write it (rows padded, logits of all tokens), and the training process of the `train`
stage with its tricks, and with one of them off each. CPU seconds are those between optimizer steps
(the first two are dropped), the ratio is that of medians within a round, memory the peak of the
process. `bfloat16` has to be asked for: processors without it emulate it, slowly.

Data come from ../shared, or from --rows and --tokenizer.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

REPO = Path(__file__).parent.parent
SHARED = REPO.parent / "shared" / "data"
sys.path.insert(0, str(REPO))

MAX_TOKENS, BATCH, SEED, DROPPED = 512, 8, 42, 2
SHAPES = {
    "small": {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 1024, "heads": (4, 2)},
    "vocab": {"vocab_size": 151936, "hidden_size": 192, "intermediate_size": 512, "heads": (3, 1)},
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What a variant changes in the train section, and the type of the model.
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "bare": ({}, "float32"),
    "project": ({}, "float32"),
    "padded": ({"padding_free": False}, "float32"),
    "unfolded": ({"fold_lora": False}, "float32"),
    "all logits": ({"label_logits": False}, "float32"),
    "bfloat16": ({}, "bfloat16"),
}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixture", choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", default=",".join(list(VARIANTS)[:-1]))
    parser.add_argument("--rows", type=Path, default=SHARED / "math/gsm8k_train.jsonl.gz")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers/qwen")
    options = parser.parse_args()
    names = options.variants.split(",")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _make_fixture(place, options)
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                job = _job(place / f"{number}-{name}", place, name, options)
                kind = "bare" if name == "bare" else "project"
                runs[name].append(_child(kind, job, options.threads))
    _print_table(runs, options)


def _print_table(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    first = next(iter(runs))
    print(f"\n{options.fixture}, {options.steps} steps, {options.threads} thread(s)\n")
    print(f"| variant | CPU s a step | times {first} | peak MB | to 1st step s | losses |")
    print("|---|---|---|---|---|---|")
    for name, found in runs.items():
        steps = [run["cpu_a_step"] for run in found]
        ratios = [
            ours["cpu_a_step"] / bare["cpu_a_step"]
            for ours, bare in zip(found, runs[first], strict=True)
        ]
        losses = found[0]["losses"]
        print(
            f"| {name} | {statistics.median(steps):.3f} ({min(steps):.3f}-{max(steps):.3f}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
            f"| {max(run['memory'] for run in found):.0f} "
            f"| {min(run['start'] for run in found):.1f} "
            f"| {losses[0]:.4f} {losses[1]:.4f} {losses[-1]:.4f} |"
        )


def _child(kind: str, job: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, str(job)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _job(folder: Path, fixture: Path, name: str, options: argparse.Namespace) -> Path:
    from swiftcore.recipe import TrainSection, TunerSection
    from swiftcore.training import TrainJob

    changes, dtype = VARIANTS[name]
    settings = {
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "max_steps": options.steps,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.01,
        "adam_beta2": 0.999,
        "train_dataloader_shuffle": False,
        "gradient_checkpointing": False,
        "padding_free": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": SEED,
        **changes,
    }
    job = TrainJob(
        train=TrainSection(**settings),
        tuner=TunerSection(lora_rank=8, lora_alpha=32, lora_dropout=0.0),
        model_dir=fixture / "model",
        encoded_dir=fixture / "encoded",
        work_dir=folder / "work",
        out_dir=folder / "out",
        torch_dtype=dtype,
        num_threads=options.threads,
    )
    job.work_dir.mkdir(parents=True)
    file = job.work_dir / "job.json"
    file.write_text(job.model_dump_json(), encoding="utf-8")
    return file


def _make_fixture(folder: Path, options: argparse.Namespace) -> None:
    if not (options.rows.is_file() and options.tokenizer.is_dir()):
        raise SystemExit(f"no rows at {options.rows} or no tokenizer at {options.tokenizer}")
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    opened = gzip.open if options.rows.suffix == ".gz" else open
    with opened(options.rows, "rt", encoding="utf-8") as stream:
        pairs = [(row["question"], row["answer"]) for row in map(json.loads, stream)]
    tokenizer = _tokenizer(options, pairs)
    shape = dict(SHAPES[options.fixture])
    heads, groups = shape.pop("heads")
    torch.manual_seed(0)
    config = Qwen2Config(
        **shape,
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    _write_rows(folder / "encoded", tokenizer, pairs, options.steps * BATCH)


def _tokenizer(options: argparse.Namespace, pairs: list[tuple[str, str]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if options.fixture == "vocab":
        packed = options.tokenizer / "tokenizer.json.gz"
        plain = options.tokenizer / "tokenizer.json"
        text = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
        backend = Tokenizer.from_buffer(text)
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=4096, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator((f"{q}\n{a}" for q, a in pairs), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=special[2], pad_token=special[0]
    )


def _write_rows(folder: Path, tokenizer: Any, pairs: list[tuple[str, str]], number: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for question, answer in pairs:
        before = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        asked = tokenizer(before, add_special_tokens=False)["input_ids"]
        answered = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
        if len(asked) + len(answered) > MAX_TOKENS:
            continue
        labels = [-100] * len(asked) + answered
        row = {"input_ids": asked + answered, "labels": labels, "loss_scale": None}
        rows.append({**row, "row": len(rows)})
        if len(rows) == number:
            break
    kinds = {"input_ids": pa.int32(), "labels": pa.int32(), "loss_scale": pa.float32()}
    fields = [(name, pa.list_(kind)) for name, kind in kinds.items()]
    folder.mkdir()
    schema = pa.schema([*fields, ("row", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "train.parquet")


class _Clock:
    """Notes the CPU seconds of this process at each optimizer step."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self, *_args: Any) -> None:
        """Take the time."""
        self.ticks.append(sum(os.times()[:2]))

    def figures(self, losses: list[float]) -> str:
        """Return the result of a child as a line of JSON."""
        ticks = self.ticks[DROPPED - 1 :]
        steps = [after - before for before, after in pairwise(ticks)]
        figures = {
            "cpu_a_step": statistics.median(steps),
            "start": self.ticks[0],
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "losses": losses,
        }
        return json.dumps(figures)


def _run_project(job_file: Path) -> None:
    """Run the training process of the `train` stage with a clock in its optimizer."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from swiftcore.training import worker
    from swiftcore.training.job import TrainJob
    from swiftcore.training.metrics import read_lines
    from swiftcore.training.workspace import Workspace

    clock = _Clock()
    register_optimizer_step_post_hook(clock.tick)
    if worker.main([str(job_file), str(os.getppid())]):
        raise SystemExit("the training failed")
    job = TrainJob.model_validate_json(job_file.read_text(encoding="utf-8"))
    lines = read_lines(Workspace(job.work_dir).metrics)
    print(clock.figures([line["loss"] for line in lines if "loss" in line]))


def _run_bare(job_file: Path) -> None:
    """Train as one would write it down, on the same rows."""
    import pyarrow.parquet as pq
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoModelForCausalLM

    job = json.loads(job_file.read_text(encoding="utf-8"))
    torch.set_num_threads(job["num_threads"])
    rows = pq.read_table(Path(job["encoded_dir"]) / "train.parquet").to_pylist()
    model = AutoModelForCausalLM.from_pretrained(job["model_dir"], dtype=torch.float32)
    torch.manual_seed(SEED)
    config = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=LINEAR)
    model = get_peft_model(model, config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    clock, losses = _Clock(), []
    for step in range(job["train"]["max_steps"]):
        batch = rows[step * BATCH : (step + 1) * BATCH]
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
        clock.tick()
    print(clock.figures(losses))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        {"bare": _run_bare, "project": _run_project}[sys.argv[2]](Path(sys.argv[3]))
    else:
        main()
