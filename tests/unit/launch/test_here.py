import pytest

from ivcp.launch.here import processes_here
from ivcp.settings import ConfigError, LaunchConfig

TWO = LaunchConfig(train_processes_per_node=2)


@pytest.mark.parametrize(
    ("launch", "gpus", "environment", "expected"),
    [
        (LaunchConfig(), 0, {}, 1),
        (LaunchConfig(), 1, {}, 1),
        (LaunchConfig(), 8, {}, 8),
        (TWO, 8, {}, 2),
        (TWO, 0, {}, 2),  # on CPUs
        (LaunchConfig(), 8, {"NPROC_PER_NODE": "1"}, 1),
        (TWO, 8, {"NPROC_PER_NODE": "4"}, 4),
        # What torchrun, deepspeed or accelerate started:
        (LaunchConfig(), 8, {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, 1),
        (TWO, 8, {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}, 1),
        # Refused by the checks of a training:
        (LaunchConfig(train_launcher="trainjob", checkpoints_uri="/shared"), 8, {}, 1),
    ],
)
def test_a_process_for_each_gpu_unless_somebody_says_otherwise(launch, gpus, environment, expected):
    assert processes_here(launch, visible_gpus=gpus, environment=environment) == expected


def test_processes_do_not_share_a_gpu():
    with pytest.raises(ConfigError, match=r"train_processes_per_node = 2, visible GPUs: 1: .*CUDA_VISIBLE_DEVICES"):
        processes_here(TWO, visible_gpus=1, environment={})
    with pytest.raises(ConfigError, match=r"NPROC_PER_NODE = 9, visible GPUs: 8"):
        processes_here(LaunchConfig(), visible_gpus=8, environment={"NPROC_PER_NODE": "9"})
    with pytest.raises(ConfigError, match="NPROC_PER_NODE = gpu: expected the number"):
        processes_here(LaunchConfig(), visible_gpus=8, environment={"NPROC_PER_NODE": "gpu"})
