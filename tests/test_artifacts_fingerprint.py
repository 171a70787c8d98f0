"""What decides an artifact's identity, and what must not."""

import math
import os
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftcore.artifacts import (
    DigestCache,
    Identity,
    InputRef,
    canonical_json,
    digests,
    folder_digest,
    section_config,
)
from swiftcore.errors import DataError, UsageError
from swiftcore.recipe import DataSection, Runtime, TrainSection, load_recipe
from swiftcore.recipe.sections import Section
from swiftcore.stages.contract import Source, StageCall
from swiftcore.stages.ingest import INGEST
from swiftcore.stages.train import TRAIN
from tests.making import REPO

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


def identity(**config: object) -> Identity:
    return Identity("train", 1, "demo", config, {"data": InputRef("a" * 64)})


def test_fingerprint_is_the_same_in_every_process_and_hash_seed():
    script = (
        "from swiftcore.artifacts import Identity, InputRef\n"
        "config = {'b': [1, 2.5, None], 'a': {'y': True, 'x': 'text'}}\n"
        "print(Identity('train', 1, 'demo', config, {'data': InputRef('a' * 64)}).fingerprint)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=REPO,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }
    assert found == {identity(a={"x": "text", "y": True}, b=[1, 2.5, None]).fingerprint}


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), PLAIN, max_size=5))
def test_fingerprint_does_not_depend_on_key_order(config: dict):
    backwards = dict(reversed(config.items()))
    assert canonical_json(config) == canonical_json(backwards)


def test_recipe_with_windows_newlines_has_the_same_fingerprint(tmp_path: Path):
    text = (
        "model: {model: base}\ndata: {dataset: [rows.jsonl]}\n"
        "template:\n  system: |\n    You are kind.\n    You are brief.\n"
    )
    unix, windows = tmp_path / "recipe.yaml", tmp_path / "windows" / "recipe.yaml"
    windows.parent.mkdir()
    unix.write_bytes(text.encode())
    windows.write_bytes(text.replace("\n", "\r\n").encode())
    sections = [section_config(load_recipe(path).recipe.template) for path in (unix, windows)]
    assert sections[0]["system"] == "You are kind.\nYou are brief.\n"
    assert canonical_json(sections[0]) == canonical_json(sections[1])


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, Path("/data"), {1, 2}, b"bytes", object(), {3: "x"}, "\ud800"],
    ids=["nan", "inf", "path", "set", "bytes", "object", "number as key", "lone surrogate"],
)
def test_value_without_a_stable_form_raises_and_names_the_field(value: object):
    with pytest.raises(UsageError) as raised:
        _ = identity(train={"schedule": [{"rate": value}]}).fingerprint
    assert raised.value.where is not None
    assert raised.value.where.startswith("train.config.train.schedule[0].rate")


def test_values_that_mean_the_same_give_the_same_text():
    class Colour(Enum):
        RED = "red"

    assert canonical_json({"a": (1, 2), "c": Colour.RED}) == '{"a":[1,2],"c":"red"}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ({"a": "1"}, {"a": 1}),
        ({"a": "\r\n"}, {"a": "\n"}),
    ],
)
def test_values_that_differ_give_different_fingerprints(one: dict, other: dict):
    assert identity(**one).fingerprint != identity(**other).fingerprint


def test_stage_version_and_inputs_are_identity_but_labels_are_not():
    base = Identity("train", 1, "demo", {}, {"data": InputRef("a" * 64, None, "rows.jsonl")})
    renamed = Identity("train", 1, "other", {}, {"data": InputRef("a" * 64, "f" * 64, "x")})
    raised = Identity("train", 2, "demo", {}, {"data": InputRef("a" * 64)})
    changed = Identity("train", 1, "demo", {}, {"data": InputRef("b" * 64)})
    assert base.fingerprint == renamed.fingerprint
    assert len({base.fingerprint, raised.fingerprint, changed.fingerprint}) == 3


def test_name_that_is_no_folder_name_is_refused_before_any_work():
    with pytest.raises(UsageError, match="name"):
        Identity("train", 1, "../demo")


def test_new_field_with_a_default_keeps_old_fingerprints():
    class Before(Section):
        rank: int = 8
        alpha: int = 32

    class After(Before):
        use_dora: bool = False

    assert section_config(Before(rank=16)) == section_config(After(rank=16))
    assert section_config(After(rank=16, use_dora=True)) != section_config(Before(rank=16))


def test_default_written_out_is_the_same_as_left_out():
    assert section_config(TrainSection(seed=42)) == section_config(TrainSection())


def write_recipe(folder: Path, rows: Path, runtime: str = "") -> Path:
    path = folder / "demo.yaml"
    text = f"model: {{scratch: {{}}}}\ndata: {{dataset: [{rows}]}}\n"
    path.write_text(text + (f"runtime: {runtime}\n" if runtime else ""))
    return path


@pytest.mark.parametrize(
    "runtime",
    [
        "{store: elsewhere}",
        "{device: cpu}",
        "{port: 9999}",
        "{num_threads: 7}",
        "{dataloader_num_workers: 2}",
    ],
)
def test_runtime_fields_do_not_change_a_fingerprint(tmp_path: Path, runtime: str):
    rows = tmp_path / "rows.jsonl"
    recipes = [load_recipe(write_recipe(tmp_path, rows, text)) for text in ("", runtime)]
    assert recipes[0].runtime != recipes[1].runtime
    configs = [canonical_json(TRAIN.config(loaded.recipe)) for loaded in recipes]
    assert configs[0] == configs[1]


def test_no_runtime_field_is_also_a_recipe_field():
    loaded_fields = set(Runtime.model_fields)
    assert not loaded_fields & (set(TrainSection.model_fields) | set(DataSection.model_fields))


def test_dataset_moved_to_another_path_keeps_the_fingerprint(tmp_path: Path):
    cache = DigestCache(None)
    found = set()
    for place in (tmp_path / "here", tmp_path / "there" / "deep"):
        place.mkdir(parents=True)
        rows = place / "rows.jsonl"
        rows.write_text('{"query": "a", "response": "b"}\n')
        recipe = load_recipe(write_recipe(place, rows)).recipe
        call = StageCall(INGEST, recipe, {"dataset[0]": Source(rows, rows.name)})
        inputs = {role: value.ref(cache) for role, value in call.inputs.items()}
        found.add(Identity("ingest", 1, "demo", INGEST.config(recipe), inputs).fingerprint)
    assert len(found) == 1


class CountingReads:
    """Counts real reads of files while it stands in for the function that reads them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[Path] = []
        read = digests.sha256_file

        def counted(file: Path) -> str:
            self.files.append(file)
            return read(file)

        monkeypatch.setattr(digests, "sha256_file", counted)


def old_file(path: Path, text: str) -> Path:
    path.write_text(text)
    time.sleep(2.1)
    return path


def test_unchanged_file_is_not_read_again_and_an_edit_that_restores_its_times_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = old_file(tmp_path / "rows.jsonl", "first")
    reads = CountingReads(monkeypatch)
    cache = DigestCache(tmp_path / "digests.sqlite")
    first = cache.sha256(file)
    assert cache.sha256(file) == first
    assert DigestCache(tmp_path / "digests.sqlite").sha256(file) == first
    assert reads.files == [file]

    before = file.stat()
    with file.open("r+") as stream:
        stream.write("FIRST")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert cache.sha256(file) != first


def test_digest_of_a_file_that_was_just_written_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "rows.jsonl"
    file.write_text("fresh")
    reads = CountingReads(monkeypatch)
    cache = DigestCache(tmp_path / "digests.sqlite")
    cache.sha256(file)
    cache.sha256(file)
    assert reads.files == [file, file]


@pytest.mark.parametrize("damage", ["no database", "locked"])
def test_damaged_or_locked_cache_costs_time_and_nothing_else(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "digests.sqlite"
    if damage == "locked":
        path.mkdir()  # SQLite can't open a folder, as it can't open a file without permission
    else:
        path.write_bytes(b"this is no database" * 100)
    file = tmp_path / "rows.jsonl"
    file.write_text("x")
    os.utime(file, (0, 0))
    monkeypatch.setattr(digests, "_RACY_NANOSECONDS", -1)
    assert DigestCache(path).sha256(file) == digests.sha256_file(file)
    assert DigestCache(path).sha256(file) == digests.sha256_file(file)


def test_folder_digest_follows_links_as_the_hub_cache_needs(tmp_path: Path):
    (tmp_path / "blobs").mkdir()
    snapshots = []
    for weights in ("one", "two"):
        blob = tmp_path / "blobs" / weights
        blob.write_text(weights)
        snapshot = tmp_path / weights
        snapshot.mkdir()
        (snapshot / "model.safetensors").symlink_to(blob)
        snapshots.append(folder_digest(snapshot, DigestCache(None)))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.safetensors").write_text("one")
    assert snapshots[0] != snapshots[1]
    assert snapshots[0] == folder_digest(plain, DigestCache(None))


def test_folder_digest_ends_on_links_in_a_circle_and_skips_bookkeeping(tmp_path: Path):
    folder = tmp_path / "model"
    (folder / ".cache").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    before = folder_digest(folder, DigestCache(None))
    (folder / ".cache" / "download.metadata").write_text("123.45")
    (folder / "again").symlink_to(folder)
    assert folder_digest(folder, DigestCache(None)) == before


def test_source_that_is_gone_is_an_error_and_not_an_empty_folder(tmp_path: Path):
    with pytest.raises(DataError, match="gone"):
        Source(tmp_path / "away", "away").ref(DigestCache(None))
