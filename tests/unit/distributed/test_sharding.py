import pytest
import torch

from ivcp.distributed.deepspeed_files import DEEPSPEED_DIR, deepspeed_settings
from ivcp.distributed.processes import on_owner
from ivcp.distributed.sharding import (
    check_distribution,
    fsdp_settings,
    launcher_settings,
    sharding_of,
)
from ivcp.settings import ConfigError, TrainConfig, config_from_settings


@pytest.mark.parametrize(("name", "sharding"), [("z1", "zero1"), ("z2_offload", "zero2"), ("z3_offload", "zero3")])
def test_configurations_that_ship(name, sharding):
    settings = deepspeed_settings(name)

    assert sharding_of(TrainConfig(deepspeed=name)) == sharding
    assert settings["train_micro_batch_size_per_gpu"] == settings["gradient_clipping"] == "auto"
    assert ("offload_optimizer" in settings["zero_optimization"]) == name.endswith("offload")
    assert deepspeed_settings(str(DEEPSPEED_DIR / f"{name}.json")) == settings


def test_fsdp_words():
    assert fsdp_settings(TrainConfig(fsdp="full_shard auto_wrap"))["reshard_after_forward"] is True
    assert fsdp_settings(TrainConfig(fsdp="shard_grad_op"))["reshard_after_forward"] is False
    for wrong in ("hybrid_shard", "offload"):
        with pytest.raises(ConfigError, match="expected full_shard or full_shard offload"):
            config_from_settings({"fsdp": wrong})


def test_what_cannot_be_sharded_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="exclude each other"):
        check_distribution(TrainConfig(fsdp="full_shard", deepspeed="z2"))
    with pytest.raises(ConfigError, match="there is one process"):
        check_distribution(TrainConfig(fsdp="full_shard"))


def test_fsdp_without_gpus_is_refused(monkeypatch):
    """accelerate would train without sharding, and say nothing."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"fsdp = full_shard needs GPUs.*set deepspeed: z3"):
        check_distribution(TrainConfig(fsdp="full_shard"))


def test_what_accelerate_passes_through_the_environment():
    environment = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1", "FSDP_OFFLOAD_PARAMS": "true", "PATH": "/bin"}
    assert launcher_settings(environment) == {"fsdp": "full_shard offload"}
    assert environment == {"PATH": "/bin"}

    deepspeed = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    assert launcher_settings(dict(deepspeed)) == {"deepspeed": "z3"}
    assert launcher_settings(deepspeed | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "my.json"}) == {"deepspeed": "my.json"}
    assert launcher_settings({"PATH": "/bin"}) == {}


def test_one_process_does_its_own_work():
    assert on_owner(lambda: 3) == 3
