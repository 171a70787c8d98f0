"""What is verified before reuse, in which order things were made, and what gc leaves alone."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from swiftcore.artifacts import Artifact, Record, Store, make, read_record
from swiftcore.artifacts import make as make_artifact
from swiftcore.artifacts.adopt import adopt, materialize
from swiftcore.artifacts.lease import hold, read_owner
from swiftcore.artifacts.lineage import lineage
from swiftcore.artifacts.sweep import find_garbage, remove
from swiftcore.errors import ArtifactDamaged, UsageError
from tests.making import identity, made_from, make_demo, must_not_run, python, wait_until, writes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def artifact(store: Store) -> Artifact:
    return make_demo(store).artifact


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_record_survives_a_round_trip(artifact: Artifact):
    assert Record.from_json(artifact.record.to_json()) == artifact.record
    assert read_record(artifact.path) == artifact.record


def test_record_says_what_an_artifact_is_made_of_and_by(artifact: Artifact):
    record = artifact.record
    assert (record.stage, record.name, record.version) == ("train", "demo", 1)
    assert [entry.path for entry in record.files] == ["model.bin"]
    assert record.metrics == {"loss": 0.5}
    assert {"python", "platform", "packages", "git_commit", "git_dirty"} <= set(record.environment)
    assert record.identity.fingerprint == record.fingerprint


@pytest.mark.parametrize(
    "alter",
    [
        lambda fields: fields["metrics"].update(loss=0.1),
        lambda fields: fields.update(version=2),
        lambda fields: fields.update(extra=1),
        lambda fields: fields.pop("files"),
        lambda fields: fields.update(schema=99),
        lambda fields: fields.pop("seal"),
    ],
)
def test_altered_record_is_not_believed(artifact: Artifact, store: Store, alter):
    path = artifact.path / "record.json"
    fields = json.loads(path.read_text())
    alter(fields)
    path.write_text(json.dumps(fields))
    found = store.lookup("train", artifact.fingerprint)
    assert found.artifact is None
    assert "record" in (found.problem or "")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 5000, '{"schema": 1}'])
def test_unreadable_record_is_a_miss_with_a_reason(artifact: Artifact, store: Store, text: str):
    (artifact.path / "record.json").write_text(text)
    assert store.lookup("train", artifact.fingerprint).problem


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\b", "", "record.json"])
def test_record_that_names_a_file_outside_its_artifact_is_refused(artifact: Artifact, path: str):
    entry = replace(artifact.record.files[0], path=path)
    sealed = replace(artifact.record, files=(entry,)).to_json()
    with pytest.raises(ArtifactDamaged, match="record"):
        Record.from_json(sealed)


@pytest.mark.parametrize("field", ["stage", "name"])
def test_record_whose_folder_would_lie_outside_the_store_is_refused(artifact: Artifact, field: str):
    fields = json.loads(artifact.record.to_json())
    fields[field] = "../../outside"
    with pytest.raises(ArtifactDamaged):
        Record.from_json(json.dumps(fields))


def test_message_names_the_file_and_both_digests(artifact: Artifact, store: Store):
    flip_a_byte(artifact.path / "model.bin")
    problem = store.lookup("train", artifact.fingerprint).problem or ""
    assert "model.bin" in problem
    assert problem.count("sha256 ") == 2
    assert artifact.record.files[0].sha256 in problem


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.bin").unlink(),
        lambda folder: (folder / "model.bin").write_text("we"),
        lambda folder: (folder / "added.py").write_text("x"),
        lambda folder: (folder / "link.py").symlink_to("/etc/hostname"),
        lambda folder: flip_a_byte(folder / "model.bin"),
    ],
    ids=["deleted", "truncated", "added", "link added", "flipped"],
)
def test_damage_is_found_by_verify(artifact: Artifact, store: Store, damage):
    store.verify(artifact)
    damage(artifact.path)
    with pytest.raises(ArtifactDamaged) as raised:
        store.verify(artifact)
    assert raised.value.exit_code == 3


def test_thorough_verify_reads_bytes_that_the_cache_would_trust(artifact: Artifact, store: Store):
    path = artifact.path / "model.bin"
    stat = path.stat()
    path.write_text("WEIGHTS")
    altered = path.stat()
    # A disk that rots changes no time: pretend the cache saw these times with the old content.
    key, state = (
        f"{stat.st_dev}:{stat.st_ino}",
        f"{altered.st_size}:{altered.st_mtime_ns}:{altered.st_ctime_ns}",
    )
    store.digests._put(key, state, artifact.record.files[0].sha256)
    store.verify(artifact)
    with pytest.raises(ArtifactDamaged):
        store.verify(artifact, thorough=True)


def test_newest_is_what_was_published_last_whatever_the_clock_said(store: Store):
    for clock, text in (("2099-01-01T00:00:00", "first"), ("2020-01-01T00:00:00", "second")):
        made = make(store, identity(text=text), writes(text)).artifact
        record = replace(made.record, finished=clock)
        (made.path / "record.json").write_text(record.to_json())
    assert [a.record.config["text"] for a in store.artifacts()] == ["first", "second"]
    assert [g.path.name[-12:] for g in find_garbage(store, keep=1)] == [
        identity(text="first").fingerprint[:12]
    ]


def test_artifact_is_found_by_folder_label_and_prefix(artifact: Artifact, store: Store):
    for reference in (str(artifact.path), artifact.label, artifact.fingerprint[:8]):
        assert store.find(reference).fingerprint == artifact.fingerprint
    assert store.find(f"artifact:{artifact.fingerprint}").label == artifact.label
    with pytest.raises(UsageError, match="No artifact") as raised:
        store.find("train/other-000000000000")
    assert artifact.label in str(raised.value)


def test_lineage_goes_back_to_the_first_inputs(store: Store):
    data = make(store, identity("ingest"), writes("rows"))
    model = make(store, made_from(data, stage="train"), writes("weights"))
    merged = make(store, made_from(model, data, stage="merge"), writes("merged"))
    tree = lineage(store, merged.artifact)
    labels = [(depth, node.ref.label.partition("-")[0]) for depth, node in tree.walk()]
    assert labels == [
        (0, "merge/demo"),
        (1, "train/demo"),
        (2, "ingest/demo"),
        (1, "ingest/demo"),
    ]
    assert tree.as_dict()["inputs"][0]["present"] is True


def make_generations(store: Store, count: int) -> list:
    """Make `count` datasets, each with a model made from it."""
    pairs = []
    for index in range(count):
        data = make(store, identity("ingest", number=index), writes(f"rows {index}"))
        pairs.append((data, make(store, made_from(data, stage="train"), writes(f"model {index}"))))
    return pairs


def kept(store: Store) -> set[str]:
    remove(find_garbage(store, keep=1))
    return {artifact.fingerprint for artifact in store.artifacts()}


def test_gc_keeps_the_newest_and_what_they_were_made_from(store: Store):
    pairs = make_generations(store, 3)
    extra = make(store, identity("ingest", number=99), writes("rows 99"))
    newest = {one.artifact.fingerprint for one in (*pairs[-1], extra)}
    assert kept(store) == newest


def test_gc_keeps_roots_and_everything_they_were_made_from(store: Store):
    pairs = make_generations(store, 3)
    root = pairs[0][1].artifact.fingerprint
    remove(find_garbage(store, keep=1, roots=[root[:12]]))
    left = {artifact.fingerprint for artifact in store.artifacts()}
    assert left == {one.artifact.fingerprint for pair in (pairs[0], pairs[2]) for one in pair}


def test_gc_takes_damaged_copies_and_work_that_nobody_works_on(store: Store, artifact: Artifact):
    flip_a_byte(artifact.path / "model.bin")
    make_demo(store)
    dead = store.begin("b" * 64)
    (dead.work / "checkpoint").write_text("x" * 100)
    found = find_garbage(store)
    assert sorted(item.path.parent.name for item in found) == ["damaged", "in-progress"]
    assert remove(found) == sum(item.size_bytes for item in found) > 100
    assert find_garbage(store) == []


def test_gc_never_touches_work_of_a_live_process_nor_its_inputs(store: Store):
    old = make(store, identity("ingest", number=1), writes("old"))
    running = python(
        "from swiftcore.artifacts import Identity, InputRef\n"
        "ref = InputRef(sys.argv[2], sys.argv[3], 'ingest')\n"
        "def body(area):\n"
        "    (area.work / 'checkpoint').write_text('precious')\n"
        "    time.sleep(60)\n"
        "make(store, Identity('train', 1, 'demo', {}, {'data': ref}), body)\n",
        store.root,
        old.artifact.digest,
        old.artifact.fingerprint,
    )
    try:
        wait_until(lambda: list(store.root.glob("in-progress/*/work/checkpoint")))
        make(store, identity("ingest", number=2), writes("new"))
        assert find_garbage(store, keep=1) == []
    finally:
        running.kill()
        running.wait()
    assert {item.path.parent.name for item in find_garbage(store, keep=1)} == {
        "in-progress",
        "ingest",
    }


def test_gc_leaves_work_that_was_taken_up_since_it_was_listed(store: Store):
    area = store.begin("b" * 64)
    (area.work / "checkpoint").write_text("x")
    found = find_garbage(store)
    with hold(store.lease_path("b" * 64), wait_seconds=0):
        assert remove(found) == 0
        assert read_owner(store.lease_path("b" * 64)) is not None
    assert (area.work / "checkpoint").exists()


def test_artifact_travels_through_a_folder_outside_the_store(
    artifact: Artifact, store: Store, tmp_path: Path
):
    folder = tmp_path / "out" / "train"
    materialize(artifact, folder)
    other = Store(tmp_path / "other")
    assert adopt(other, folder).digest == artifact.digest
    flip_a_byte(folder / "model.bin")
    with pytest.raises(ArtifactDamaged):
        adopt(Store(tmp_path / "third"), folder)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("x")
    with pytest.raises(UsageError):
        materialize(artifact, mine)
    assert (mine / "notes.txt").read_text() == "x"


def test_thousand_lookups_leave_no_open_files_and_no_growth(artifact: Artifact, store: Store):
    os.utime(artifact.path / "model.bin", (0, 0))
    time.sleep(2.1)
    store.lookup("train", artifact.fingerprint)
    files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    size = (store.root / "digests.sqlite").stat().st_size
    for _ in range(1000):
        assert make_artifact(store, identity(), must_not_run).reused
    if files:
        assert len(list(Path("/proc/self/fd").iterdir())) <= files
    assert (store.root / "digests.sqlite").stat().st_size == size
    assert list((store.root / "leases").iterdir()) == []
