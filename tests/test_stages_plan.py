"""The plan says what a run then does, why, and what it will cost."""

from dataclasses import replace
from pathlib import Path

import pytest

from swiftcore.artifacts import Artifact, Produced, Store, canonical_json
from swiftcore.errors import (
    ArtifactDamaged,
    DataError,
    ModelMissing,
    RecipeError,
    StoreFull,
    UsageError,
)
from swiftcore.recipe import LoadedRecipe, Runtime, build_recipe
from swiftcore.stages import (
    Link,
    Road,
    Source,
    Stage,
    StageRun,
    Step,
    run_stage,
    run_steps,
    served_candidate,
)
from swiftcore.stages.graph import STAGES, build_road
from swiftcore.stages.plan import PlannedStep, plan
from swiftcore.stages.resolve import resolve_reference


def copy_rows(run: StageRun) -> Produced:
    (run.area.out / "rows.txt").write_text(run.inputs["rows"].read_text())
    return Produced()


def train(run: StageRun) -> Produced:
    rows = (run.inputs["dataset"] / "rows.txt").read_text()
    seed = run.recipe.train.seed
    (run.area.out / "model.bin").write_text(f"{rows} learned with seed {seed}" * 100)
    return Produced(metrics={"loss": 0.1})


INGEST = Stage("ingest", 1, lambda recipe: {}, copy_rows)
TRAIN = Stage("train", 1, lambda recipe: {"train": {"seed": recipe.train.seed}}, train)


class Workshop:
    """A road of two small stages over one file."""

    def __init__(self, folder: Path) -> None:
        self.rows = folder / "rows.txt"
        self.rows.write_text("first")
        self.store = Store(folder / "store")

    def road(self, *, seed: int = 42, train_version: int = 1) -> Road:
        values = {"model": {"model": "m"}, "data": {"dataset": ["x"]}, "train": {"seed": seed}}
        recipe = build_recipe({"name": "demo", **values}).recipe
        ingest = Step(INGEST, recipe, {"rows": Source(self.rows, "rows.txt")})
        stage = replace(TRAIN, version=train_version)
        return Road(recipe, (ingest, Step(stage, recipe, {"dataset": Link(ingest)})))

    def plan(self, **changes) -> list[PlannedStep]:
        return plan(self.road(**changes), self.store)

    def run(self, **changes) -> tuple[dict[str, Artifact], dict[str, bool]]:
        reused: dict[str, bool] = {}

        class Notes:
            def __getattr__(self, name: str):
                return lambda *arguments: None

            def finished(self, step, outcome) -> None:
                reused[step.label] = outcome.reused

        made = run_steps(self.road(**changes).steps, self.store, Runtime(), Notes())
        return made, reused


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_first_plan_says_never_made_and_after_what(workshop: Workshop):
    ingest, train = workshop.plan()
    assert (ingest.action, ingest.reason) == ("run", "never made here")
    assert (train.action, train.reason) == ("run", "after demo/ingest")
    assert train.fingerprint is None
    assert ingest.seconds is None
    assert ingest.size_bytes is None


def test_plan_of_finished_work_reuses_all(workshop: Workshop):
    made, _ = workshop.run()
    planned = workshop.plan()
    assert [step.action for step in planned] == ["reuse", "reuse"]
    assert [step.fingerprint for step in planned] == [a.fingerprint for a in made.values()]


def test_changed_field_is_named_with_old_and_new_value(workshop: Workshop):
    workshop.run()
    ingest, train = workshop.plan(seed=7)
    assert ingest.action == "reuse"
    assert (train.action, train.reason) == ("run", "train.seed 42 -> 7")


def test_long_value_is_shortened_in_the_reason(workshop: Workshop):
    workshop.run()
    assert len(workshop.plan(seed=10**200)[1].reason) < 160


def test_changed_input_is_named(workshop: Workshop):
    workshop.run()
    workshop.rows.write_text("edited")
    ingest, train = workshop.plan()
    assert (ingest.action, ingest.reason) == ("run", "input rows changed (rows.txt)")
    assert train.reason == "after demo/ingest"


def test_raised_stage_version_is_named(workshop: Workshop):
    workshop.run()
    assert workshop.plan(train_version=2)[1].reason == "stage version 1 -> 2"


def test_damaged_artifact_is_named_with_its_file(workshop: Workshop):
    made, _ = workshop.run()
    (made["demo/train"].path / "model.bin").write_text("x")
    planned = workshop.plan()[1]
    assert planned.action == "run"
    assert "model.bin is not what was published" in planned.reason


def test_estimates_come_from_past_records(workshop: Workshop):
    made, _ = workshop.run()
    record = made["demo/train"].record
    planned = workshop.plan(seed=7)[1]
    assert planned.action == "run"
    assert (planned.seconds, planned.size_bytes) == (record.seconds, record.size_bytes)
    assert planned.size_bytes == len("first learned with seed 42") * 100


@pytest.mark.parametrize("changes", [{}, {"seed": 7}, {"train_version": 2}])
def test_plan_agrees_with_what_a_run_then_does(workshop: Workshop, changes: dict):
    workshop.run()
    planned = {step.label: step.action == "reuse" for step in workshop.plan(**changes)}
    _, reused = workshop.run(**changes)
    assert planned == reused
    assert [step.action for step in workshop.plan(**changes)] == ["reuse", "reuse"]


def test_plan_changes_nothing(workshop: Workshop):
    workshop.plan()
    assert not workshop.store.root.exists()


def test_plan_is_json_ready(workshop: Workshop):
    assert canonical_json([step.as_dict() for step in workshop.plan()])


def test_input_edited_while_the_stage_reads_it_publishes_nothing(workshop: Workshop):
    def edits(run: StageRun) -> Produced:
        produced = copy_rows(run)
        workshop.rows.write_text("edited meanwhile")
        return produced

    road = workshop.road()
    step = replace(road.steps[0], stage=replace(INGEST, run=edits))
    with pytest.raises(DataError, match="changed while") as raised:
        run_steps([step], workshop.store, Runtime())
    assert raised.value.exit_code == 3
    assert list(workshop.store.artifacts()) == []


def test_input_artifact_altered_before_its_use_is_refused(workshop: Workshop):
    made, _ = workshop.run()
    (made["demo/ingest"].path / "rows.txt").write_text("FIRST")
    call = workshop.road(seed=9).steps[1].call(made)
    assert call is not None
    with pytest.raises(ArtifactDamaged, match=r"rows\.txt"):
        run_stage(call, workshop.store, Runtime())


def test_room_that_a_stage_needs_is_asked_for_before_it_runs(workshop: Workshop):
    step = workshop.road().steps[0]
    huge = replace(step, stage=replace(INGEST, needs_bytes=lambda inputs: 1 << 60))
    with pytest.raises(StoreFull):
        run_steps([huge], workshop.store, Runtime())


def test_reference_to_an_altered_artifact_is_refused(workshop: Workshop):
    made, _ = workshop.run()
    artifact = made["demo/train"]
    for reference in (f"artifact:{artifact.fingerprint[:12]}", str(artifact.path)):
        assert resolve_reference(reference, workshop.store) == artifact
    (artifact.path / "model.bin").write_text("x")
    for reference in (f"artifact:{artifact.fingerprint[:12]}", str(artifact.path)):
        with pytest.raises(ArtifactDamaged):
            resolve_reference(reference, workshop.store)
    with pytest.raises(UsageError):
        resolve_reference("artifact:000000000000", workshop.store)


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: dict) -> LoadedRecipe:
    monkeypatch.chdir(folder)
    (folder / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n')
    values = {"name": "demo", "model": {"scratch": {}}, "data": {"dataset": ["rows.jsonl"]}}
    return build_recipe({**values, **sections})


def test_road_runs_the_sections_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = {"dataset": ["rows.jsonl"], "test_dataset": ["rows.jsonl"]}
    sections = {"data": rows, "merge": {}, "quantize": {}, "evaluate": {}}
    recipe = loaded(tmp_path, monkeypatch, **sections)
    road = build_road(recipe, Store(tmp_path / "store"))
    names = ["ingest", "scratch", "template", "train", "merge", "quantize", "evaluate"]
    assert [step.stage.name for step in road.steps] == names
    assert [step.stage.name for step in road.until("template")] == names[:3]
    assert set(names) <= set(STAGES)
    assert list(road.candidates()) == ["adapter", "merged", "quantized"]
    assert served_candidate(road) == "merged"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"tuner": {"train_type": "full"}, "merge": {}}, "no adapter to merge"),
        ({"tuner": {"train_type": "adapter"}, "merge": {}}, "can't be folded into its base"),
        ({"quantize": {}}, "after it is merged"),
        ({"evaluate": {}}, "test_dataset"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict, words: str
):
    with pytest.raises(RecipeError, match=words):
        build_road(loaded(tmp_path, monkeypatch, **sections), Store(tmp_path / "store"))


def test_model_that_is_wanted_for_serving_but_not_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = {"dataset": ["rows.jsonl"], "test_dataset": ["rows.jsonl"]}
    sections = {"data": rows, "evaluate": {}, "deploy": {"serve": "quantized"}}
    recipe = loaded(tmp_path, monkeypatch, **sections)
    with pytest.raises(RecipeError, match="quantized"):
        served_candidate(build_road(recipe, Store(tmp_path / "store")))


def test_missing_base_model_is_an_environment_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = loaded(tmp_path, monkeypatch, model={"model": "no/such/model"})
    with pytest.raises(ModelMissing) as raised:
        build_road(recipe, Store(tmp_path / "store"))
    assert raised.value.exit_code == 5


def test_missing_data_file_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = loaded(tmp_path, monkeypatch, data={"dataset": ["row.jsonl"]})
    with pytest.raises(DataError) as raised:
        build_road(recipe, Store(tmp_path / "store"))
    assert raised.value.exit_code == 3
