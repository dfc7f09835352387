import json

import pytest

from ivcp.distributed.quantized import check_quantized_sharding
from ivcp.settings import ConfigError, config_from_settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization_bit": 4, "deepspeed": "z3"}, "quantization_bit = 4 with deepspeed = z3: .*set deepspeed: z2"),
        ({"quantization_bit": 8, "deepspeed": "examples/deepspeed/ds_z3_offload_config.json"}, "ZeRO-3 cannot shard"),
        ({"quantization_bit": 8, "fsdp": "full_shard"}, "8 with fsdp = full_shard: .*set quantization_bit: 4"),
    ],
)
def test_quantized_weights_that_cannot_be_sharded(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_quantized_sharding(config_from_settings(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization_bit": 4},
        {"quantization_bit": 4, "deepspeed": "z2"},
        {"quantization_bit": 8, "deepspeed": "z1"},
        {"quantization_bit": 4, "fsdp": "full_shard"},
        {"deepspeed": "z3"},
    ],
)
def test_those_that_need_not_be(settings):
    check_quantized_sharding(config_from_settings(settings))


def test_a_file_of_the_users_own(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    with pytest.raises(ConfigError, match="ZeRO-3 cannot shard"):
        check_quantized_sharding(config_from_settings({"quantization_bit": 4, "deepspeed": str(file)}))
