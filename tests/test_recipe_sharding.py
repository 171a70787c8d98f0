"""ZeRO++'s second partition: into DeepSpeed's settings, or refused."""

import pytest

from swiftcore.errors import UsageError
from swiftcore.recipe import TrainSection
from swiftcore.recipe.sharding import deepspeed_config


def test_the_partition_is_handed_to_deepspeed():
    train = TrainSection(deepspeed="zero3", zero_hpz_partition_size=4)
    found = deepspeed_config(train.deepspeed, train.zero_hpz_partition_size)
    assert found == {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 4}}
    assert deepspeed_config("zero3") == {"zero_optimization": {"stage": 3}}
    own = {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 4}}
    assert deepspeed_config(own, 4) == own


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "does nothing without train.deepspeed"),
        ({"deepspeed": "zero2"}, "train.deepspeed is ZeRO 2"),
        (
            {"deepspeed": {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}},
            "say different things",
        ),
    ],
)
def test_a_partition_of_nothing_is_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        TrainSection(zero_hpz_partition_size=4, **settings)


def test_processes_that_can_not_be_divided_so_are_refused():
    from swiftcore.training.distributed.zero import _require_equal_parts

    _require_equal_parts(2, 4)
    with pytest.raises(UsageError, match="can't be divided") as caught:
        _require_equal_parts(3, 4)
    assert caught.value.found == "3, of 4 processes"
