"""The folder that training hands on: a model, or an adapter, with all it needs to be used."""

import shutil
from pathlib import Path
from typing import Any

from swiftcore.models.base_record import BASE_RECORD, base_record
from swiftcore.models.files import (
    ADAPTER_CONFIG,
    TEMPLATE_FILE,
    copy_tokenizer_files,
    read_json,
    write_json,
)
from swiftcore.models.tasks import write_pooling, write_task
from swiftcore.training.job import TrainJob
from swiftcore.training.metrics import Line, write_history
from swiftcore.tuners import save_adapter
from swiftcore.tuners.kinds import KINDS


def write_outputs(model: Any, job: TrainJob, lines: list[Line]) -> None:
    """Write the trained model or adapter and its history into `job.out_dir`.

    Nothing in the folder depends on where or when it was made: equal runs give equal bytes.
    """
    out = job.out_dir
    out.mkdir(parents=True, exist_ok=True)
    if job.tuner.train_type == "full":
        _write_model(model, job, out)
    else:
        _write_adapter(model, job, out)
    copy_tokenizer_files(job.model_dir, out)
    if (job.encoded_dir / TEMPLATE_FILE).is_file():
        shutil.copyfile(job.encoded_dir / TEMPLATE_FILE, out / TEMPLATE_FILE)
    write_task(out, job.task)
    if job.task.pooling is not None:
        width = model.config.get_text_config().hidden_size
        write_pooling(out, job.task.pooling, width)
    write_history(lines, out, loss="cross-entropy a label token" if job.task.is_text else "loss")


def _write_adapter(model: Any, job: TrainJob, out: Path) -> None:
    save_adapter(model, out)
    config = read_json(out / ADAPTER_CONFIG)
    config["base_model_name_or_path"] = job.model_dir.resolve().name
    for name, value in config.items():
        # peft keeps these as sets, whose order changes from process to process.
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[name] = sorted(value)
    write_json(out / ADAPTER_CONFIG, config)
    write_json(out / BASE_RECORD, base_record(job.model_dir))
    (out / "README.md").write_text(_card(job), encoding="utf-8")


def _write_model(model: Any, job: TrainJob, out: Path) -> None:
    model.save_pretrained(out)
    for name in ("config.json", "generation_config.json"):
        if (out / name).is_file():
            write_json(out / name, read_json(out / name))


def _card(job: TrainJob) -> str:
    tuner = job.tuner
    name = "LoRA" if tuner.train_type == "lora" else tuner.train_type
    reads_rank = "lora_rank" in KINDS[tuner.train_type].settings
    sizes = f", rank {tuner.lora_rank}, alpha {tuner.lora_alpha}" if reads_rank else ""
    return (
        f"# {name} adapter\n\nBase model: {job.model_dir.resolve().name}\n\n"
        f"Method {job.train.method}{sizes}. "
        f"The digests of the base's weights are in {BASE_RECORD}, the loss curve in loss.csv.\n"
    )
