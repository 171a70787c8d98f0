"""What reading and encoding rows costs, beside a bare loop over the same tokenizer.

    python bench/data.py [--rounds 3] [--rows 1000000]

Three tables: ingest of a generated file in one and two processes, with its peak memory at a tenth
of the rows; the same with cleaning; and file to encoded rows on GSM8K with the real Qwen tokenizer
(from ../shared/data, left out where that is not), against `tokenizers` alone. CPU seconds count
child processes; ratios within one round are what to look at on a busy machine.
"""

import argparse
import gzip
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parent.parent
SHARED = REPO.parent / "shared" / "data"
sys.path.insert(0, str(REPO))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--copies", type=int, default=8, help="of GSM8K's 7,473 rows")
    parser.add_argument("--only", choices=["ingest", "encode"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "encode":
            _ingest_table(Path(folder), options.rows)
        if options.only != "ingest" and SHARED.is_dir():
            _encode_table(Path(folder), options.rounds, options.copies)


def _ingest_table(folder: Path, rows: int) -> None:
    print("| ingest | rows | processes | wall s | CPU s | rows/s | peak memory MB |")
    print("|---|---|---|---|---|---|---|")
    large, small = _generated(folder, rows), _generated(folder, rows // 10)
    for file, processes, cleaning in (
        (small, 1, {}),
        (large, 1, {}),
        (large, 2, {}),
        (small, 1, {"near_duplicates": 0.8, "secrets": "mask", "personal": "mask"}),
    ):
        figures = json.loads(_child("ingest", str(file), str(processes), json.dumps(cleaning)))
        name = "with near duplicates and privacy" if cleaning else "plain"
        print(
            f"| {name} | {figures['rows']:,} | {processes} | {figures['wall']:.1f} "
            f"| {figures['cpu']:.1f} | {figures['rows'] / figures['wall']:,.0f} "
            f"| {figures['memory']:.0f} |",
            flush=True,
        )


def _generated(folder: Path, rows: int) -> Path:
    """Write rows of about 600 bytes: a question of 20 words, an answer of 40, an id."""
    path = folder / f"rows-{rows}.jsonl"
    rng = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            row = {
                "messages": [
                    {"role": "user", "content": " ".join(rng.choices(words, k=20))},
                    {"role": "assistant", "content": " ".join(rng.choices(words, k=40))},
                ],
                "id": number,
            }
            stream.write(json.dumps(row) + "\n")
    return path


def _child(*arguments: str) -> str:
    command = [sys.executable, __file__, "--child", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _measured_ingest(file: str, processes: str, cleaning: str) -> None:
    from swiftcore.data import Pool, build_dataset
    from swiftcore.recipe.sections import CleaningSection, DataSection

    section = DataSection(dataset=[file], cleaning=CleaningSection(**json.loads(cleaning)))
    with tempfile.TemporaryDirectory(dir=Path(file).parent) as out:
        wall, cpu = time.monotonic(), _cpu()
        report = build_dataset(section, Path(out), pool=Pool(int(processes)))
        figures = {
            "rows": report.total("rows"),
            "wall": time.monotonic() - wall,
            "cpu": _cpu() - cpu,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    print(json.dumps(figures))


def _cpu() -> float:
    return sum(os.times()[:4])


def _encode_table(folder: Path, rounds: int, copies: int) -> None:
    """Compare file -> encoded rows, in one process and in two, with the bare tokenizer in one."""
    source = folder / "gsm8k.jsonl"
    with gzip.open(SHARED / "math/gsm8k_train.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    with source.open("w", encoding="utf-8") as out:
        for copy in range(copies):
            for row in rows:
                messages = [
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": f"{copy}. {row['question']}"},
                    {"role": "assistant", "content": row["answer"]},
                ]
                out.write(json.dumps({"messages": messages}) + "\n")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    packed = SHARED / "tokenizers/qwen/tokenizer.json.gz"
    (tokenizer / "tokenizer.json").write_bytes(gzip.decompress(packed.read_bytes()))
    shutil.copy(SHARED / "tokenizers/qwen/tokenizer_config.json", tokenizer)
    figures = json.loads(_child("encode", str(folder), str(rounds)))
    count, bare = figures.pop("rows"), figures["bare"]
    print(f"\n| GSM8K, {count:,} rows | rows/s | times bare | CPU s, times bare |")
    print("|---|---|---|---|")
    for name, (wall, cpu) in figures.items():
        print(f"| {name} | {count / wall:,.0f} | {bare[0] / wall:.2f} | {cpu / bare[1]:.2f} |")


def _measured_encode(folder: str, rounds: str) -> None:
    # One tokenizer thread: what a process costs, and what a second process brings.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoTokenizer

    from swiftcore.data import Pool, build_dataset
    from swiftcore.recipe.sections import DataSection, TemplateSection
    from swiftcore.template import encode_dataset

    place = Path(folder)
    tokenizer = AutoTokenizer.from_pretrained(place / "tokenizer")
    section = TemplateSection(template="qwen2_5", max_length=512)

    def ours(processes: int) -> None:
        data = DataSection(dataset=[str(place / "gsm8k.jsonl")])
        build_dataset(data, place / "dataset", pool=Pool(processes))
        encode_dataset(
            section,
            place / "dataset",
            tokenizer,
            place / "encoded",
            method="sft",
            model_type=None,
            max_model_length=None,
            tokenizer_dir=place / "tokenizer",
            pool=Pool(processes),
        )

    runs = {
        "bare": lambda: _bare(place / "gsm8k.jsonl", tokenizer.backend_tokenizer),
        "file to encoded rows, one process": lambda: ours(1),
        "file to encoded rows, two processes": lambda: ours(2),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(int(rounds)):
        for name, run in runs.items():
            wall, cpu = time.monotonic(), _cpu()
            run()
            figures[name].append((time.monotonic() - wall, _cpu() - cpu))
    best = {
        name: [min(column) for column in zip(*times, strict=True)]
        for name, times in figures.items()
    }
    with (place / "gsm8k.jsonl").open(encoding="utf-8") as lines:
        rows = sum(1 for _ in lines)
    print(json.dumps({"rows": rows, **best}))


def _bare(source: Path, tokenizer: object) -> int:
    """Do the least that makes ids and the place of the answer: json, one text a row, offsets."""
    texts, cuts = [], []
    for line in source.open(encoding="utf-8"):
        messages = json.loads(line)["messages"]
        turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages[:-1]]
        prompt = "".join(turns) + "<|im_start|>assistant\n"
        texts.append(prompt + messages[-1]["content"] + "<|im_end|>")
        cuts.append(len(prompt))
    encoded = []
    for start in range(0, len(texts), 1000):
        batch = tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)
        for each, cut in zip(batch, cuts[start : start + 1000], strict=True):
            offsets, low, high = each.offsets, 0, len(each.ids)
            while low < high:
                middle = (low + high) // 2
                if offsets[middle][0] < cut:
                    low = middle + 1
                else:
                    high = middle
            encoded.append((each.ids[:512], low))
    return len(encoded)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        {"ingest": _measured_ingest, "encode": _measured_encode}[sys.argv[2]](*sys.argv[3:])
    else:
        main()
