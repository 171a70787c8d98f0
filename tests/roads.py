"""A whole road in small: recipes and data that train real gradients in a few seconds."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from data.generators import agent, corpus

# As users start it. After an interrupt in an exec, which many imports are, `python -m` would end
# itself by the signal, whatever exit code the command gave.
SWIFT = [str(Path(sys.executable).with_name("swift"))]
REPO = Path(__file__).parent.parent


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(path: Path, values: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def tiny_recipes(
    folder: Path, *, max_steps: int = 4, base_name: str = "tiny_base", name: str = "tiny"
) -> tuple[Path, Path]:
    """Write the data and two recipes, a base and a road, below a folder; return both paths."""
    rows = agent.splits({"train": 48, "val": 8, "test": 6}, seed=7)
    files = {
        split: write_rows(folder / f"data/{split}.jsonl", list(rows[split]))
        for split in ("train", "val", "test")
    }
    text = write_rows(folder / "data/corpus.jsonl", list(corpus.documents(200, seed=7)))
    base = write_recipe(
        folder / f"recipes/{base_name}.yaml",
        {
            "name": base_name,
            "model": {
                "scratch": {
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 1,
                    "head_dim": 32,
                    "vocab_size": 700,
                },
                "torch_dtype": "float32",
            },
            "data": {"dataset": [str(text)], "split_dataset_ratio": 0.05},
            "template": {"max_length": 256},
            "tuner": {"train_type": "full"},
            "train": _train("pt", max_steps),
            "runtime": {"store": str(folder / "store"), "num_threads": 1},
        },
    )
    road = write_recipe(
        folder / f"recipes/{name}.yaml",
        {
            "name": name,
            "model": {"model": f"recipe:{base}", "torch_dtype": "float32"},
            "data": {
                "dataset": [str(files["train"])],
                "val_dataset": [str(files["val"])],
                "test_dataset": [str(files["test"])],
            },
            "template": {"template": "chatml", "agent_template": "hermes"},
            "tuner": {"train_type": "lora", "lora_rank": 4},
            "train": _train("sft", max_steps),
            "merge": {},
            "quantize": {"min_recovery": 0.0, "quant_n_samples": 8},
            "evaluate": {"metrics": ["agent", "rouge"], "max_new_tokens": 8, "num_bootstrap": 100},
            # An untrained model has no score to speak of: these tests are about the road.
            "deploy": {"name": name, "gate": {"min_value": 0.0, "min_recovery": 0.0}},
            "runtime": {"store": str(folder / "store"), "num_threads": 1, "port": 0},
        },
    )
    return base, road


def _train(method: str, max_steps: int) -> dict:
    return {
        "method": method,
        "learning_rate": 1.0e-3,
        "max_steps": max_steps,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_steps": 2,
    }


def swift(*arguments: object, cwd: Path | None = None, timeout: float = 300):
    """Run the command line in a process of its own and return the finished process."""
    return subprocess.run(
        [*SWIFT, *map(str, arguments)],
        cwd=cwd or REPO,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def swift_here(*arguments: object, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has imported already what stages import."""
    from swiftcore.cli.main import main

    output, errors = io.StringIO(), io.StringIO()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            exit_code = main([*map(str, arguments)])
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    return subprocess.CompletedProcess(
        [*arguments], exit_code, output.getvalue(), errors.getvalue()
    )
