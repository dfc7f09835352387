"""DeepSpeed's configurations: those that ship here, and files of the user's own."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from ivcp.settings import ConfigError

DEEPSPEED_DIR = Path(__file__).parent / "deepspeed"


def deepspeed_settings(name: str) -> dict[str, Any]:
    """The DeepSpeed configuration `name`: one that ships here, or the path of a JSON file.

    A path as LLaMA-Factory has it, `examples/deepspeed/ds_z3_config.json`, is the configuration of that name that ships
    here, unless there is such a file.

    Raises:
        ConfigError: there is no such file, it is no JSON, or it sets what this project's settings say.
    """
    shipped = sorted(path.stem for path in DEEPSPEED_DIR.glob("*.json"))
    path, meant = Path(name), shipped_name(name)
    if not path.is_file() and meant in shipped:
        path = DEEPSPEED_DIR / f"{meant}.json"
    if not path.is_file():
        near = difflib.get_close_matches(meant, shipped, n=1)
        hint = f"; did you mean deepspeed: {near[0]}?" if near else ""
        hint = "; z0 shards nothing: remove deepspeed" if meant == "z0" else hint
        raise ConfigError(
            f"deepspeed = {name}: no such file; give the path of a JSON file, or one of the configurations that "
            f"ship here: {', '.join(shipped)}{hint}"
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"deepspeed = {name} is not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"deepspeed = {name}: expected an object with DeepSpeed's sections, got {settings!r:.80}")
    for section, ours in (("optimizer", "optim, learning_rate, …"), ("scheduler", "lr_scheduler_type, …")):
        if section in settings:
            raise ConfigError(f"deepspeed = {name} sets `{section}`: remove that section, and set {ours} instead")
    # torch's AdamW also runs on the CPU; DeepSpeed's own for offloading must be compiled at the first start.
    return {"zero_force_ds_cpu_optimizer": False} | settings


def zero_stage(name: str) -> int:
    """The ZeRO stage of the configuration `name`, 0 to 3.

    Raises:
        ConfigError: as `deepspeed_settings`.
    """
    return int(deepspeed_settings(name).get("zero_optimization", {}).get("stage", 0))


def shipped_name(name: str) -> str:
    """What a configuration is called here: `z3_offload` for `examples/deepspeed/ds_z3_offload_config.json`."""
    return Path(name).name.removesuffix(".json").removeprefix("ds_").removesuffix("_config")
