"""What optimizers and losses do in two processes: the curve that one process has."""

import pytest
from forked import train_together
from training_setup import counting_rows, make_job, tiny_base, write_encoded

from swiftcore.errors import UsageError
from swiftcore.recipe import build_recipe
from swiftcore.recipe.processes import Processes
from swiftcore.training import TrainJob
from swiftcore.training.metrics import read_lines
from swiftcore.training.workspace import Workspace
from tests.task_setup import EMBEDDING, likeness_rows, scoring_job

pytestmark = pytest.mark.road

FULL = {"train_type": "full"}
LISA = {**FULL, "lisa_activated_layers": 1, "lisa_step_interval": 2}
GALORE = {**FULL, "use_galore": True, "galore_rank": 8, "galore_update_proj_gap": 2}
STEPS = {"max_steps": 4, "logging_steps": 1, "save_steps": 4, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """13 rows: the last round of an epoch is not full."""
    root = tmp_path_factory.mktemp("objectives")
    rows = counting_rows(16)
    base = tiny_base(root / "base", num_hidden_layers=3)
    return base, write_encoded(root / "encoded", rows[:13], rows[13:])


def of_two(job: TrainJob) -> TrainJob:
    return job.model_copy(update={"processes": Processes(per_node=2)})


def unmeasured(job: TrainJob, **update) -> TrainJob:
    """Spare the measurement of what the machine can compute."""
    return job.model_copy(update={"peak_flops": 1e9, **update})


def curve(job: TrainJob, name: str) -> list[float]:
    lines = read_lines(Workspace(job.work_dir).metrics)
    return [line[name] for line in lines if name in line]


def assert_same_curves(one: TrainJob, two: TrainJob, rel: float) -> None:
    assert len(curve(one, "loss")) == one.train.max_steps
    for name in ("loss", "eval_loss", "grad_norm"):
        assert curve(two, name) == pytest.approx(curve(one, name), rel=rel), name


@pytest.mark.parametrize(
    ("tuner", "train", "dtype", "rel"),
    [
        (LISA, {}, None, 1e-5),
        (GALORE, {}, None, 1e-4),
        # Newton-Schulz iterates in bfloat16 anyway.
        (FULL, {"optimizer": "muon"}, "bfloat16", 1e-2),
    ],
    ids=["lisa", "galore", "muon, bfloat16"],
)
def test_two_processes_step_as_one_does(inputs, tmp_path, tuner, train, dtype, rel):
    settings = {**STEPS, **train, "gradient_accumulation_steps": 2}
    one, two = (
        unmeasured(
            make_job(
                tmp_path / str(rows),
                *inputs,
                tuner=tuner,
                per_device_train_batch_size=rows,
                **settings,
            ),
            torch_dtype=dtype,
        )
        for rows in (4, 2)
    )
    two = of_two(two)
    (alone,) = train_together(one)
    results = train_together(two)
    assert [result.metrics["steps"] for result in results] == [alone.metrics["steps"]] * 2
    assert_same_curves(one, two, rel)
    assert curve(one, "loss")[-1] < curve(one, "loss")[0]


def test_infonce_compares_the_rows_of_all_processes(inputs, tmp_path):
    # 17 rows for training and 9 for validation: eight at a time, and one process without the last.
    rows = likeness_rows(17), likeness_rows(9, 1)
    settings = {
        **STEPS,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "infonce_mask_fake_negative": True,
        "infonce_include_qq": True,
        "infonce_include_dd": True,
    }
    task = EMBEDDING.model_copy(update={"pooling": "mean"})
    two = of_two(unmeasured(scoring_job(tmp_path / "2", inputs[0], task, *rows, **settings)))
    # The same rows in one process; without the number it would compare four with each other.
    one = scoring_job(tmp_path / "1", inputs[0], task, *rows, **settings, data_parallel_size=2)
    assert (one.batch_plan(), two.batch_plan()) == ((8, 1), (4, 1))
    train_together(unmeasured(one))
    results = train_together(two)
    assert [result.metrics["steps"] for result in results] == [4, 4]
    assert_same_curves(one, two, 1e-5)
    for name in ("eval_mrr", "eval_margin"):
        assert curve(two, name) == pytest.approx(curve(one, name), rel=1e-4)


def test_rows_that_are_compared_are_in_the_recipe(monkeypatch, tmp_path):
    def recipe(**train):
        model = {"model": "m", "task_type": "embedding"}
        values = {"model": model, "data": {"dataset": ["d.jsonl"]}, "train": train}
        return build_recipe(values).recipe.train.data_parallel_size

    assert recipe() is None
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    assert recipe() == 2
    assert recipe(infonce_use_batch=False) is None
    assert recipe(loss_type="contrastive") is None
    job = make_job(tmp_path, tmp_path, tmp_path, per_device_train_batch_size=1)
    job = job.model_copy(update={"task": EMBEDDING, "processes": Processes(per_node=2)})
    single = job.train.model_copy(update={"data_parallel_size": 1})
    with pytest.raises(UsageError, match="can't share") as caught:
        job.model_copy(update={"train": single}).batch_plan()
    assert caught.value.found == "1 rows compared, 2 processes"
