"""One machine, many processes, a cluster: the same dataset, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swiftcore.data import Pool, build_dataset
from swiftcore.data import ingest as ingest_module
from swiftcore.errors import DataError, TransientError
from swiftcore.recipe.sections import DataSection

FILES = ("train.parquet", "val.parquet", "quarantine.jsonl", "report.json", "card.md")


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSection:
    """Return a section whose file is several chunks, with bad rows and copies in between."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ingest_module, "CHUNK_BYTES", 20_000)
    lines = []
    for number in range(3000):
        row: dict = {"question": f"question {number % 2900}", "answer": f"answer {number % 2900}"}
        if number % 100 == 7:
            row = {"nothing": number}
        if number % 500 == 3:
            row["label"] = [number] if number > 1000 else number
        lines.append(json.dumps(row))
    Path("rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataSection(dataset=["rows.jsonl"], split_dataset_ratio=0.1)


def _built(section: DataSection, out: str, pool: Pool) -> dict[str, bytes]:
    report = build_dataset(section, Path(out), pool=pool)
    assert report.total("rows") == 3000
    assert report.total("quarantined") == 30
    return {name: (Path(out) / name).read_bytes() for name in FILES}


def test_two_processes_make_the_same_bytes_as_one(section: DataSection):
    assert _built(section, "one", Pool()) == _built(section, "two", Pool(2))


def test_the_size_of_chunks_and_shards_changes_no_byte(section: DataSection, monkeypatch):
    before = _built(section, "before", Pool())
    monkeypatch.setattr(ingest_module, "CHUNK_BYTES", 3_000)
    monkeypatch.setattr("swiftcore.data.shards.MAX_SHARD_ROWS", 17)
    assert _built(section, "after", Pool()) == before


def test_the_blocks_a_split_is_written_in_change_no_byte(section: DataSection, monkeypatch):
    before = _built(section, "before", Pool())
    monkeypatch.setattr("swiftcore.data.dataset._BLOCK_CHARACTERS", 500_000)
    assert _built(section, "after", Pool())["report.json"] == before["report.json"]


def test_a_local_ray_cluster_makes_the_same_bytes(section: DataSection, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert _built(section, "here", Pool()) == _built(section, "ray", Pool(ray_address="local"))


def test_an_error_in_a_worker_process_arrives_whole(section: DataSection):
    strict = section.model_copy(update={"strict": True})
    with pytest.raises(DataError) as caught:
        build_dataset(strict, Path("out"), pool=Pool(2))
    assert caught.value.where == "rows.jsonl:8"
    assert not Path("out/.shards").exists()


def _killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), 9)
    return number


def test_a_killed_worker_is_said_and_leaves_no_process():
    with pytest.raises(TransientError, match="killed") as caught:
        list(Pool(2).map(_killed, range(10)))
    assert "dataset_num_proc=1" in (caught.value.do or "")


def test_worker_processes_end_with_a_killed_parent(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from swiftcore.data import Pool\n"
        "def slow(number):\n"
        "    open(f'{number}.pid', 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(Pool(2).map(slow, range(4)))\n"
    )
    root = str(Path(__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}
    )
    try:
        _wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        workers = [int(file.read_text() or 0) for file in tmp_path.glob("*.pid")]
    finally:
        parent.kill()
        parent.wait()
    _wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def _wait_for(condition, seconds: float = 30.0) -> None:
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
