"""A tiny base model, encoded rows and jobs for the tests of training and export."""

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from swiftcore.models import build_scratch, load_model
from swiftcore.recipe import ScratchModel, TrainSection, TunerSection
from swiftcore.training import TrainJob, TrainResult
from swiftcore.training.metrics import MEASURED
from swiftcore.training.stopping import StopRequest
from swiftcore.training.worker import train
from swiftcore.training.workspace import Workspace

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "What is the weather in Paris tomorrow? Book 2 seats on the 7:45 train.",
    "Grüße aus Köln, naïve café, 東京 и Москва 🙂",
] * 5
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "vocab_size": 330,
    "max_position_embeddings": 256,
}
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("loss_scale", pa.list_(pa.float32())),
        ("row", pa.int64()),
    ]
)


def tiny_base(folder: Path, **shape) -> Path:
    return build_scratch(ScratchModel(**{**SHAPE, **shape}), folder, texts=TEXTS)


def counting_rows(num_rows: int, *, seed: int = 0, labelled: bool = True) -> list[dict]:
    """Rows of rising token ids, which a tiny model learns within a few steps."""
    rng = random.Random(seed)
    rows = []
    for row in range(num_rows):
        start, length = rng.randrange(20, 60), rng.randrange(8, 20)
        ids = list(range(start, start + length))
        labels = [-100] * 2 + ids[2:] if labelled else [-100] * length
        rows.append({"input_ids": ids, "labels": labels, "loss_scale": None, "row": row})
    return rows


def counting_inputs(folder: Path, num_rows: int = 20, num_held_out: int = 4) -> tuple[Path, Path]:
    """A tiny base and encoded counting rows, the last of them held out."""
    rows = counting_rows(num_rows + num_held_out)
    encoded = write_encoded(folder / "encoded", rows[:num_rows], rows[num_rows:])
    return tiny_base(folder / "base"), encoded


def counting_model(base: Path, folder: Path) -> Path:
    """A model that has learned to count, with some layers' worth of accuracy to lose."""
    model = load_model(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(60):
        rows = counting_rows(8, seed=seed)
        ids = torch.stack([torch.tensor((row["input_ids"] * 2)[:8]) for row in rows])
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    shutil.copytree(base, folder)
    model.save_pretrained(folder)
    return folder


def write_encoded(folder: Path, train: list[dict], val: list[dict] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(train, SCHEMA), folder / "train.parquet")
    if val:
        pq.write_table(pa.Table.from_pylist(val, SCHEMA), folder / "val.parquet")
    (folder / "swift_template.json").write_text(json.dumps({"template": "qwen2_5", "schema": 1}))
    return folder


def make_job(root: Path, base: Path, encoded: Path, *, tuner: dict | None = None, **train):
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 4,
        "learning_rate": 1e-2,
        "logging_steps": 3,
        "save_steps": 4,
        "gradient_checkpointing": False,
        **train,
    }
    return TrainJob(
        train=TrainSection(**settings),
        tuner=TunerSection(**(tuner or {})),
        model_dir=base,
        encoded_dir=encoded,
        work_dir=root / "work",
        out_dir=root / "out",
    )


def train_in_this_process(job: TrainJob) -> TrainResult:
    """Do what the training process does, without the 6 CPU seconds that its start takes."""
    files = Workspace(job.work_dir)
    files.forget_attempt()
    return train(job, files, StopRequest())


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def timeless(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def learn(model, ids, steps: int = 5) -> list[float]:
    """Train what is trainable on one batch [B, T] and return the loss before each step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model.train()(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
