"""Training in several processes: what torchrun, deepspeed and accelerate start.

    torchrun --nproc-per-node 2 -m ivcp.cli.train my.yaml deepspeed=z2
    deepspeed --num_gpus 4 --module ivcp.cli.train --deepspeed z3 --stage action_cls --model_name_or_path … --bf16
    accelerate launch --config_file fsdp.yaml -m ivcp.cli.train my.yaml

Settings are those of `ivcp train`. Exit codes: 0 done; 1 it failed; 2 a file or a setting is wrong; 75 interrupted by
SIGTERM, and the same command again resumes the run (a launcher ends with a code of its own).
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ivcp import steps as single_steps
from ivcp.cli.terminal import TRACEBACK, explain
from ivcp.distributed.rank import is_owner
from ivcp.distributed.sharding import launcher_settings
from ivcp.launch.here import PARENT_TELLS_VARIABLE
from ivcp.settings import load_config, read_words

log = logging.getLogger("ivcp.cli.train")

_ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
"""Set by torchrun for each process."""


def main() -> None:
    """Trains in this process, one of those that the launcher started."""
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(
        level=logging.INFO if is_owner() else logging.WARNING,
        format=f"%(asctime)s process {rank} %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    faulthandler.enable()
    try:
        train(sys.argv[1:])
    except Exception as error:  # the process's edge
        code, message = explain(error)
        if TRACEBACK in sys.argv or PARENT_TELLS_VARIABLE not in os.environ:
            log.error("%s", message, exc_info=error if TRACEBACK in sys.argv else None)
        tell_launcher(message)
        sys.exit(code)


def train(words: Sequence[str]) -> None:
    """Trains with settings from command-line words: at most one YAML file, and overrides."""
    file, overrides = read_words(own_words(words))
    config = load_config(file, launcher_settings(os.environ) | overrides)
    result = single_steps.train(config)
    if is_owner():
        log.info("%s; adapter in %s", result.summary, Path(config.train.output_dir).absolute())


def tell_launcher(message: str) -> None:
    """Writes a message, with its time, where torchrun looks for the first process that failed.

    torch's own `record` adds a traceback, which torchrun shows in place of the message.
    """
    file = os.environ.get(_ERROR_FILE_VARIABLE)
    if file:
        told = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(file).write_text(json.dumps({"message": told}), encoding="utf-8")


def own_words(words: Sequence[str]) -> list[str]:
    """The words without what launchers add."""
    left = [word for word in words if word != TRACEBACK]
    while "--local_rank" in left:
        at = left.index("--local_rank")
        del left[at : at + 2]
    return [word for word in left if not word.startswith(("--local_rank=", "--local-rank="))]


if __name__ == "__main__":
    main()
