import json

import pytest

from ivcp.distributed.deepspeed_files import DEEPSPEED_DIR, deepspeed_settings
from ivcp.settings import ConfigError


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("examples/deepspeed/ds_z3_config.json", "z3"),
        ("examples/deepspeed/ds_z3_offload_config.json", "z3_offload"),
        ("configs/deepspeed/ds_z2_config.json", "z2"),
        ("z1.json", "z1"),
    ],
)
def test_the_users_file_names_are_those_that_ship(name, meant):
    assert deepspeed_settings(name) == deepspeed_settings(str(DEEPSPEED_DIR / f"{meant}.json"))


def test_a_file_of_that_name_wins(tmp_path):
    file = tmp_path / "ds_z3_config.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3}, "steps_per_print": 7}))

    assert deepspeed_settings(str(file))["steps_per_print"] == 7


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"ship here: z1, z2, z2_offload, z3, z3_offload; z0 shards nothing"):
        deepspeed_settings("examples/deepspeed/ds_z0_config.json")
    with pytest.raises(ConfigError, match=r"did you mean deepspeed: z2_offload\?"):
        deepspeed_settings("z2_ofload")
    file = tmp_path / "ds.json"
    for content, message in [
        (json.dumps({"optimizer": {"type": "AdamW"}}), "sets `optimizer`: remove that section"),
        ("{", "is not valid JSON"),
        ("[1]", r"expected an object with DeepSpeed's sections, got \[1\]"),
    ]:
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            deepspeed_settings(str(file))
