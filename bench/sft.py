"""What a LoRA step costs, beside a bare loop of torch, transformers and peft, and beside the peers.

    python bench/sft.py small [--rounds 3] [--steps 12] [--threads 1] [--variants bare,project,...]
    python bench/sft.py small --ms-swift PYTHON --llamafactory PYTHON

`small` is a random Qwen2 of 5 million parameters with a vocabulary of 4,096 of its own, `vocab` one
of 31 million, 29 of them in the head of the real Qwen vocabulary. Rows are GSM8K's first of at most
512 tokens, loss on answers; batches of 8 rows in file order, LoRA of rank 8 on all linear layers.

Every variant trains in a process of its own, one after the other, round after round, the order
turned around each time: the bare loop as one would write it, the training process of the `train`
stage with its tricks and with one of them off each, transformers' Trainer and TRL. ms-swift and
LLaMA-Factory join with the Python of an environment that has them. CPU seconds are those between
optimizer steps (the first two are dropped), the ratio is that of medians within a round, memory the
peak of the process, the start CPU seconds to the first forward pass of training.

MFU: operations that a step needs (no padding, the head for label tokens alone, gradients of LoRA's
matrices) over those that one core does in the same CPU seconds in float32 products of 2,048 cubed,
measured in the same run.

`bfloat16` and the DoRA variants have to be asked for: processors without it emulate the first,
slowly. Data come from ../shared, or from --rows and --tokenizer.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
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
LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0}
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Variant:
    """One line of the table.

    Args:
        loop: which loop of `sft_contenders` it is.
        train: what it changes in the project's train section.
        tuner: and in its tuner section.
        dtype: of the project's model.
        trl: settings of TRL.
    """

    loop: str = "project"
    train: dict[str, Any] = field(default_factory=dict)
    tuner: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    trl: dict[str, Any] = field(default_factory=dict)


PADDING_FREE = {"padding_free": True, "max_length": None, "loss_type": "nll"}
VARIANTS = {
    "bare": Variant("bare"),
    "project": Variant(),
    "padded": Variant(train={"padding_free": False}),
    "unfolded": Variant(train={"fold_lora": False}),
    "all logits": Variant(train={"label_logits": False}),
    "trainer": Variant("trainer"),
    "trl": Variant("trl", trl={"loss_type": "nll"}),
    "trl padding-free": Variant("trl", trl=PADDING_FREE),
    "ms-swift": Variant("ms-swift"),
    "llamafactory": Variant("llamafactory"),
    "bfloat16": Variant(dtype="bfloat16"),
    "dora": Variant(tuner={"use_dora": True}),
    "dora unfolded": Variant(tuner={"use_dora": True}, train={"fold_lora": False}),
}
USUAL = ["bare", "project", "padded", "unfolded", "all logits", "trainer", "trl"]


def main() -> None:
    """Print one table."""
    from swiftcore.models.quiet import quiet_imports

    options = _options()
    quiet_imports()
    names = options.variants.split(",")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _make_fixture(place, options)
        flops, peak = _needed_flops(place, options), _peak_flops(options.threads)
        started, num_done, num_runs = time.monotonic(), 0, options.rounds * len(names)
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                _say(f"round {number + 1}: {name}", started, num_done, num_runs)
                num_done += 1
                task = _task(place / f"{number}-{name.replace(' ', '-')}", place, name, options)
                if (figures := _child(VARIANTS[name].loop, task, options)) is not None:
                    runs[name].append(figures)
    print(
        f"\n{_heading(options)}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after; ", end=""
    )
    print(f"{peak / 1e9:.0f} GFLOP/s in float32 products\n")
    _print_table({name: found for name, found in runs.items() if found}, flops / peak)


def _say(what: str, started: float, num_done: int, num_runs: int) -> None:
    passed = time.monotonic() - started
    eta = f", {passed / num_done * (num_runs - num_done):.0f} s to go" if num_done else ""
    print(f"{what} ({num_done + 1} of {num_runs}{eta})", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixture", choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", help=f"of {', '.join(VARIANTS)}; default: {','.join(USUAL)}")
    parser.add_argument("--ms-swift", help="Python of an environment with ms-swift")
    parser.add_argument("--llamafactory", help="Python of an environment with LLaMA-Factory")
    parser.add_argument("--rows", type=Path, default=SHARED / "math/gsm8k_train.jsonl.gz")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers/qwen")
    options = parser.parse_args()
    options.pythons = {"ms-swift": options.ms_swift, "llamafactory": options.llamafactory}
    given = [name for name, python in options.pythons.items() if python]
    options.variants = options.variants or ",".join([*USUAL, *given])
    for name in options.variants.split(","):
        if name not in VARIANTS:
            parser.error(f"{name!r} is none of {', '.join(VARIANTS)}")
        if name in options.pythons and not options.pythons[name]:
            parser.error(f"{name} needs --{name} with the Python of its environment")
    return options


def _heading(options: argparse.Namespace) -> str:
    names = ("torch", "transformers", "peft", "trl")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    commit = subprocess.run(
        ["git", "-C", str(REPO), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (
        f"{options.fixture}, {options.steps} steps, {options.threads} thread(s), {versions}, "
        + (f"commit {commit or 'unknown'}")
    )


def _print_table(runs: dict[str, list[dict[str, Any]]], seconds_at_peak: float) -> None:
    first = next(iter(runs))
    print(f"| variant | CPU s a step | times {first} | MFU | peak MB | start CPU s | losses |")
    print("|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        steps = [statistics.median(run["steps"]) for run in found]
        others = [statistics.median(run["steps"]) for run in runs[first]]
        ratios = [ours / bare for ours, bare in zip(steps, others, strict=False)]
        losses = found[0]["losses"]
        print(
            f"| {name} | {statistics.median(steps):.3f} ({min(steps):.3f}-{max(steps):.3f}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
            f"| {seconds_at_peak / statistics.median(steps):.0%} "
            f"| {max(run['memory'] for run in found):.0f} "
            f"| {min(run['first_forward'] for run in found):.1f} "
            f"| {losses[0]:.4f} {losses[1]:.4f} {losses[-1]:.4f} |"
        )


def _child(loop: str, task: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return what a process measured; None, said on stderr, when it failed."""
    python = options.pythons.get(loop) or sys.executable
    command = [python, str(REPO / "bench" / "sft_contenders.py"), loop, str(task)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "DISABLE_VERSION_CHECK": "1",  # LLaMA-Factory's, of the library it is measured with
        "MODELSCOPE_CACHE": str(task.parent / "modelscope"),
    }
    environment.pop("PYTHONPATH", None)
    if loop == "project":
        environment["PYTHONPATH"] = str(REPO)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=task.parent, check=False
    )
    if done.returncode:
        print(f"{loop} failed:\n{done.stdout[-500:]}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _task(folder: Path, fixture: Path, name: str, options: argparse.Namespace) -> Path:
    folder.mkdir()
    task = {
        "model": str(fixture / "model"),
        "encoded": str(fixture / "encoded"),
        "conversations": str(fixture / "conversations.jsonl"),
        "out": str(folder / "out"),
        "job": str(_job(folder / "out", fixture, VARIANTS[name], options)),
        "steps": options.steps,
        "batch": BATCH,
        "max_tokens": MAX_TOKENS,
        "threads": options.threads,
        "seed": SEED,
        "learning_rate": 1e-4,
        "lora": LORA,
        "trl": VARIANTS[name].trl,
    }
    file = folder / "task.json"
    file.write_text(json.dumps(task), encoding="utf-8")
    return file


def _job(folder: Path, fixture: Path, variant: Variant, options: argparse.Namespace) -> Path:
    from swiftcore.recipe import TrainSection, TunerSection
    from swiftcore.training import TrainJob

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
        **variant.train,
    }
    job = TrainJob(
        train=TrainSection(**settings),
        tuner=TunerSection(lora_rank=8, lora_alpha=32, lora_dropout=0.0, **variant.tuner),
        model_dir=fixture / "model",
        encoded_dir=fixture / "encoded",
        work_dir=folder / "work",
        out_dir=folder / "out",
        torch_dtype=variant.dtype,
        num_threads=options.threads,
    )
    job.work_dir.mkdir(parents=True)
    file = job.work_dir / "job.json"
    file.write_text(job.model_dump_json(), encoding="utf-8")
    return file


def _needed_flops(fixture: Path, options: argparse.Namespace) -> float:
    """Return the operations that a step needs, the mean over the steps that count."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from swiftcore.recipe import TunerSection
    from swiftcore.training.flops import model_work
    from swiftcore.tuners import prepare_model

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(fixture / "model"))
    model.tie_weights()
    work = model_work(prepare_model(model, TunerSection(lora_rank=8, lora_dropout=0.0)))
    rows = pq.read_table(fixture / "encoded" / "train.parquet").to_pylist()[DROPPED * BATCH :]
    lengths = [len(row["input_ids"]) for row in rows]
    labels = sum(label != -100 for row in rows for label in row["labels"])
    pairs = sum(length**2 / 2 for length in lengths)
    return work.training_flops(sum(lengths), labels, pairs) / (len(rows) / BATCH)


def _peak_flops(threads: int) -> float:
    """Return what one core does a second in large float32 products, the best of several."""
    code = (
        "import time, torch\n"
        f"torch.set_num_threads({threads})\n"
        "a, b = torch.rand(2, 2048, 2048)\n"
        "best = float('inf')\n"
        "for _ in range(8):\n"
        "    start = time.process_time()\n"
        "    a @ b\n"
        "    best = min(best, time.process_time() - start)\n"
        "print(2 * 2048**3 / best)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


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
    _write_rows(folder, tokenizer, pairs, options.steps * BATCH)


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

    rows: list[dict[str, Any]] = []
    conversations: list[str] = []
    for question, answer in pairs:
        before = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        asked = tokenizer(before, add_special_tokens=False)["input_ids"]
        answered = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
        if len(asked) + len(answered) > MAX_TOKENS:
            continue
        labels = [-100] * len(asked) + answered
        row = {"input_ids": asked + answered, "labels": labels, "loss_scale": None}
        rows.append({**row, "row": len(rows)})
        said = (("system", SYSTEM), ("user", question), ("assistant", answer))
        messages = [{"role": role, "content": content} for role, content in said]
        conversations.append(json.dumps({"messages": messages}) + "\n")
        if len(rows) == number:
            break
    kinds = {"input_ids": pa.int32(), "labels": pa.int32(), "loss_scale": pa.float32()}
    fields = [(name, pa.list_(kind)) for name, kind in kinds.items()]
    (folder / "encoded").mkdir()
    schema = pa.schema([*fields, ("row", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "encoded" / "train.parquet")
    (folder / "conversations.jsonl").write_text("".join(conversations), encoding="utf-8")


if __name__ == "__main__":
    main()
