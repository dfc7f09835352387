"""One node of a training: checks it, starts its processes with torchrun, and copies the result to its destination.

    python -m ivcp.launch.node URI          a pod of a TrainJob, whose `JobFolder` is at URI
    python -m ivcp.launch.node WORK.json    the training step itself, on one node

torchrun reads the PET_* variables that Kubeflow Trainer's torch policy sets. Exit codes: 0 done; 1 it failed, another
start may succeed; 2 a setting, a file or the machine is wrong; 75 interrupted by SIGTERM, a checkpoint is written.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from ivcp.launch.preflight import MissingPeersError, NodeNeeds, check_node, meet_nodes
from ivcp.launch.torchrun import FAILED, ProcessesFailedError, run_torchrun
from ivcp.launch.trainjob.folder import JobFolder
from ivcp.launch.worker import REFUSALS, WRONG_CALL, Work
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig, read_saved_config

log = logging.getLogger(__name__)

FAILURE_FILE_VARIABLE = "IVCP_FAILURE_FILE"
"""Where the reason of a failure is written; unset is what Kubernetes reads it from."""
_TERMINATION_LOG = "/dev/termination-log"
_LONGEST_REASON = 4000
"""Kubernetes' limit is 4,096 bytes."""


def main() -> None:
    """Runs this node."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        run_node(sys.argv[1])
    except ProcessesFailedError as error:
        end(error.exit_code, str(error))
    except REFUSALS as error:
        end(WRONG_CALL, f"{type(error).__name__}: {error}")
    except (MissingPeersError, OSError) as error:  # other errors end this process with their traceback
        end(FAILED, f"{type(error).__name__}: {error}")


def end(exit_code: int, reason: str) -> None:
    """Says why, in the log and where Kubernetes shows it, and ends this process."""
    log.error("%s", reason)
    file = Path(os.environ.get(FAILURE_FILE_VARIABLE, _TERMINATION_LOG))
    if file.parent.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK):
        file.write_text(reason[:_LONGEST_REASON], encoding="utf-8")
    sys.exit(exit_code)


def run_node(source: str) -> None:
    """Trains on this node with the inputs at `source`, and, for a job, leaves the result there.

    Raises:
        PreflightError, MissingPeersError: this node cannot train, or the others did not come.
        ProcessesFailedError: a process failed, or SIGTERM came.
    """
    if "HOME" in os.environ:
        Path(os.environ["HOME"]).mkdir(parents=True, exist_ok=True)  # libraries keep caches there
    if source.endswith(".json"):
        file = Path(source)
        _train(file, Work.read(file))
        return
    folder = JobFolder(source)
    with tempfile.TemporaryDirectory(prefix="ivcp-training-") as local:
        os.chdir(local)  # the root file system may be read-only
        work = folder.bring_inputs(Path(local))
        file = Path(local) / "work.json"
        work.write(file)
        _train(file, work)
        if int(os.environ.get("PET_NODE_RANK", "0")) == 0:
            folder.send_result(Path(work.output_dir))


def _train(file: Path, work: Work) -> None:
    config = read_saved_config(Path(work.run_config))
    Path(work.output_dir).parent.mkdir(parents=True, exist_ok=True)
    needs = NodeNeeds.of(config, PreparedIndex.read(Path(work.index)))
    check_node(needs, Path(work.output_dir).parent)
    _meet(config)
    run_torchrun(["-m", "ivcp.launch.worker", str(file)], processes=config.launch.train_processes_per_node)


def _meet(config: RunConfig) -> None:
    count = int(os.environ.get("PET_NNODES", "1"))
    if count > 1:
        # A port beside torchrun's own, which it opens after this.
        port = int(os.environ["PET_MASTER_PORT"]) + 1
        number, seconds = int(os.environ["PET_NODE_RANK"]), config.launch.train_start_seconds
        meet_nodes(os.environ["PET_MASTER_ADDR"], port, number=number, count=count, seconds=seconds)


if __name__ == "__main__":
    main()
