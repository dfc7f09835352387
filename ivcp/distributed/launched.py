"""Several processes: joining them, waiting for the first one, and sharding with DeepSpeed or FSDP2.

Processes are started by torchrun, deepspeed or accelerate; the environment they set is all that is read here.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import distributed, nn

from ivcp.settings import ConfigError, TrainConfig

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp2"]

DEEPSPEED_DIR = Path(__file__).parent / "deepspeed"
_LONGEST_WAIT = timedelta(days=365)
"""For work that only the first process does: preparing the clips of a large data set takes hours."""
_FSDP_WORDS = {"full_shard", "shard_grad_op", "auto_wrap", "offload"}


class OtherProcessError(RuntimeError):
    """Another process of the run ended; its own log says why."""


def is_main_process() -> bool:
    """Whether this is the process that prepares, writes and logs."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """Processes of this run, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined_processes(train: TrainConfig) -> Iterator[None]:
    """Connects the processes that a launcher started, and parts them at the end. Nothing happens in a single one.

    DeepSpeed wants a group of one as well. After an error the group is left as it is: the launcher ends the others.

    Raises:
        ConfigError: `deepspeed` or `fsdp` cannot be used.
    """
    check_distribution(train)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # accelerate imports DeepSpeed in every run, which would warn
    if distributed.is_initialized() or (num_processes() == 1 and not train.deepspeed):
        yield
        return
    _connect(timedelta(seconds=train.ddp_timeout))
    if train.deepspeed:
        _prepare_deepspeed()
    yield
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # models that are loaded from here on are whole
    distributed.barrier()
    distributed.destroy_process_group()


def on_main_process(function: Callable[[], ResultT]) -> ResultT:
    """Runs `function` in the first process; the others wait, however long, and get its (picklable) result.

    Raises:
        OtherProcessError: in the others, where the first one failed.
    """
    if num_processes() == 1:
        return function()
    group = distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    answer = [function() if is_main_process() else None]
    try:
        distributed.broadcast_object_list(answer, src=0, group=group)
    except RuntimeError as error:
        raise OtherProcessError("process 0 ended before this one could start: its log says why") from error
    distributed.destroy_process_group(group)
    result: ResultT = answer[0]  # type: ignore[assignment]
    return result


def gathered(value: ResultT) -> list[ResultT]:
    """The (picklable) values of all processes, by rank; they wait for each other, however long.

    Raises:
        OtherProcessError: another process ended.
    """
    if num_processes() == 1:
        return [value]
    group = distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    values: list[Any] = [None] * num_processes()
    try:
        distributed.all_gather_object(values, value, group=group)
    except RuntimeError as error:
        raise OtherProcessError("another process ended before all were here: its log says why") from error
    distributed.destroy_process_group(group)
    return values


def any_process(flag: bool) -> bool:
    """Whether `flag` is set in any process; all of them ask."""
    if num_processes() == 1:
        return flag
    flags = torch.tensor(int(flag))
    distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
    return bool(flags)


def wait_for_all() -> None:
    """Returns when all processes are here."""
    if num_processes() > 1:
        any_process(False)  # a barrier would use the GPUs


def check_distribution(train: TrainConfig) -> None:
    """Checks `deepspeed` and `fsdp` before any work is done.

    Raises:
        ConfigError: names the setting and what to do.
    """
    if train.deepspeed and train.fsdp:
        raise ConfigError(f"deepspeed = {train.deepspeed} and fsdp = {train.fsdp} exclude each other: keep one")
    if train.deepspeed:
        deepspeed_settings(train.deepspeed)
    if train.fsdp:
        fsdp_settings(train)
        if num_processes() == 1:
            raise ConfigError(
                f"fsdp = {train.fsdp}: there is one process, and nothing to share the weights with; start with "
                "`torchrun --nproc-per-node N -m ivcp.cli.train …` or remove fsdp"
            )


def sharding_of(train: TrainConfig) -> Sharding:
    """How the settings spread optimizer state and weights over the processes."""
    if train.fsdp:
        return "fsdp2"
    if not train.deepspeed:
        return "none"
    stage = deepspeed_settings(train.deepspeed).get("zero_optimization", {}).get("stage", 0)
    stages: dict[int, Sharding] = {0: "zero1", 1: "zero1", 2: "zero2", 3: "zero3"}
    return stages[stage]


def deepspeed_settings(name: str) -> dict[str, Any]:
    """The DeepSpeed configuration `name`: one that ships here, or the path of a JSON file.

    Raises:
        ConfigError: there is no such file, it is no JSON, or it sets what this project's settings say.
    """
    shipped = sorted(path.stem for path in DEEPSPEED_DIR.glob("*.json"))
    path = DEEPSPEED_DIR / f"{name}.json" if name in shipped else Path(name)
    if not path.is_file():
        # `examples/deepspeed/ds_z3_config.json` and its like are LLaMA-Factory's names of the same configurations.
        words = path.stem.removeprefix("ds_").removesuffix("_config").replace("_offload_config", "_offload")
        near = difflib.get_close_matches(words, shipped, n=1)
        hint = f"; did you mean deepspeed: {near[0]}?" if near else ""
        raise ConfigError(
            f"deepspeed = {name}: no such file; give the path of a JSON file, or one of the configurations that "
            f"ship here: {', '.join(shipped)}{hint}"
        )
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"deepspeed = {name} is not valid JSON: {error}") from error
    for section, ours in (("optimizer", "optim, learning_rate, …"), ("scheduler", "lr_scheduler_type, …")):
        if section in settings:
            raise ConfigError(f"deepspeed = {name} sets `{section}`: remove that section, and set {ours} instead")
    # torch's AdamW also runs on the CPU; DeepSpeed's own for offloading must be compiled at the first start.
    return {"zero_force_ds_cpu_optimizer": False} | settings


def fsdp_settings(train: TrainConfig) -> dict[str, Any]:
    """transformers' `fsdp_config` for FSDP2.

    Raises:
        ConfigError: `fsdp` holds another word than FSDP2 knows.
    """
    words = set((train.fsdp or "").replace(",", " ").split())
    unknown = sorted(words - _FSDP_WORDS)
    if unknown or not words & {"full_shard", "shard_grad_op"}:
        raise ConfigError(f"fsdp = {train.fsdp}: expected full_shard or full_shard offload")
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": "full_shard" in words,
        "cpu_offload": "offload" in words and torch.cuda.is_available(),  # without GPUs they are there
        # Each process writes its part of the optimizer's state, readable by any number of processes.
        "state_dict_type": "FULL_STATE_DICT" if train.save_only_model else "SHARDED_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    }


def sharded_layers(model: nn.Module) -> list[str]:
    """Class names of the blocks that FSDP gathers one by one: those that the model's parts say must not be split.

    Everything else, the token's row and the decoder among it, belongs to the root.

    Raises:
        ConfigError: the model names none.
    """
    from transformers import PreTrainedModel

    named: set[str] = set()
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            named.update(part._no_split_modules or ())
    present = sorted(named & {type(part).__name__ for part in model.modules()})
    if not present:
        raise ConfigError("fsdp: this model does not say which of its blocks can be sharded; use deepspeed: z3 instead")
    return present


def shard_on_cpu(accelerator: Any, arguments: Any) -> None:
    """Makes an Accelerator shard with FSDP2 although there are no GPUs, where accelerate 1.15 falls back to DDP.

    So the same code runs in tests on CPUs.
    """
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)


def launcher_settings(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Settings that `accelerate launch` passes through the environment, taken out of it, by this project's names.

    Only these names are read from here on, so that one description of the run holds everywhere (FSDP1, which
    accelerate's older files ask for, becomes FSDP2).
    """
    settings: dict[str, str] = {}
    if environment.pop("ACCELERATE_USE_FSDP", "false").lower() == "true":
        offload = environment.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
        settings["fsdp"] = "full_shard offload" if offload else "full_shard"
    if environment.pop("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        offload = "cpu" in environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "")
        stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
        settings["deepspeed"] = file or f"z{stage}{'_offload' if offload and stage != '1' else ''}"
    for name in [name for name in environment if name.startswith(("FSDP_", "ACCELERATE_DEEPSPEED_"))]:
        del environment[name]
    if settings:
        log.info("accelerate's configuration: %s", ", ".join(f"{key}: {value}" for key, value in settings.items()))
    return settings


def _connect(timeout: timedelta) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo beside NCCL: FSDP's offloading and the first process's answers lie on the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)


def _prepare_deepspeed() -> None:
    """Shows DeepSpeed the processes, without which ZeRO-3 loads the model as if there were one, and compiles nothing.

    The shared-memory operator for CPUs is built at the first start, and a start that is killed in that minute leaves
    a lock on which every later one waits for ever.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
