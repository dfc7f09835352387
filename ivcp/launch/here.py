"""Training on this machine with a process for each of its GPUs: what `ivcp train` does where there are several."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from ivcp.launch.torchrun import run_torchrun, silence_torchrun
from ivcp.settings import ConfigError, LaunchConfig

log = logging.getLogger(__name__)

PARENT_TELLS_VARIABLE = "IVCP_PARENT_TELLS"
"""Set in processes whose parent says why they failed."""
_OF_NODES = {
    "NNODES": "--nnodes",
    "NODE_RANK": "--node-rank",
    "MASTER_ADDR": "--master-addr",
    "MASTER_PORT": "--master-port",
}
"""LLaMA-Factory's variables for several nodes, and torchrun's options."""


def processes_here(launch: LaunchConfig, *, visible_gpus: int, environment: Mapping[str, str]) -> int:
    """How many processes a training on this machine takes; 1 is this one.

    That is NPROC_PER_NODE (LLaMA-Factory's variable), else `train_processes_per_node`, else one for each visible GPU.
    What a launcher has started trains in itself.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if "LOCAL_RANK" in environment or launch.train_launcher != "inline":
        return 1
    given = environment.get("NPROC_PER_NODE")
    if given is not None and not (given.isdigit() and int(given) > 0):
        raise ConfigError(f"NPROC_PER_NODE = {given}: expected the number of training processes, as 4")
    asked = int(given) if given else launch.train_processes_per_node
    if asked == 1 and not given:
        return max(1, visible_gpus)
    if asked > visible_gpus > 0:
        key = "NPROC_PER_NODE" if given else "train_processes_per_node"
        raise ConfigError(
            f"{key} = {asked}, visible GPUs: {visible_gpus}: a process trains on a GPU of its own; set it to "
            f"{visible_gpus} or less, or make more visible (CUDA_VISIBLE_DEVICES)"
        )
    return asked


def train_here(words: Sequence[str], *, processes: int) -> None:
    """Trains with the settings of command-line words in processes that torchrun starts.

    Raises:
        ProcessesFailedError: one failed, or SIGTERM came; nothing was printed of that.
    """
    log.info("starting %d processes: one trains on each GPU, or as many as were asked for", processes)
    os.environ[PARENT_TELLS_VARIABLE] = "1"
    nodes = int(os.environ.get("NNODES", "1"))
    given = {option: os.environ[name] for name, option in _OF_NODES.items() if name in os.environ}
    options = [f"{option}={value}" for option, value in given.items()] if nodes > 1 else []
    import torch.distributed.run  # noqa: F401 (makes the loggers)

    silence_torchrun()
    run_torchrun(["-m", "ivcp.cli.train", *words], processes=processes, options=options)
