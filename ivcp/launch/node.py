"""One node of a training: checks it, starts its processes with torchrun, and copies the result to its destination.

    python -m ivcp.launch.node URI          a pod of a TrainJob, whose `JobFolder` is at URI
    python -m ivcp.launch.node WORK.json    the training step itself, on one node

torchrun reads the PET_* variables that Kubeflow Trainer's torch policy sets. Exit codes: 0 done; 1 it failed, another
start may succeed; 2 a setting, a file or the machine is wrong; 75 interrupted by SIGTERM, a checkpoint is written.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ivcp.launch.preflight import MissingPeersError, NodeNeeds, check_node, meet_nodes
from ivcp.launch.trainjob.folder import JobFolder
from ivcp.launch.worker import REFUSALS, WRONG_CALL, Work
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig, read_saved_config
from ivcp.training.interruption import INTERRUPTED

log = logging.getLogger(__name__)

FAILED = 1
FAILURE_FILE_VARIABLE = "IVCP_FAILURE_FILE"
"""Where the reason of a failure is written; unset is what Kubernetes reads it from."""
_TERMINATION_LOG = "/dev/termination-log"
_LONGEST_REASON = 4000
"""Kubernetes' limit is 4,096 bytes."""
_SHUTDOWN_SECONDS = 270
"""For a checkpoint after SIGTERM: the pod has 300."""
_CONSEQUENCES = ("OtherProcessError", "DistBackendError", "DistNetworkError", "Connection", "gloo", "NCCL", "Socket")
"""Words in the errors of processes that only noticed another one's end."""


class ProcessesFailedError(RuntimeError):
    """Processes of this node ended with an error; the message has the first process's first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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
    run_torchrun(["-m", "ivcp.launch.worker", str(file)], config)


def _meet(config: RunConfig) -> None:
    count = int(os.environ.get("PET_NNODES", "1"))
    if count > 1:
        # A port beside torchrun's own, which it opens after this.
        port = int(os.environ["PET_MASTER_PORT"]) + 1
        number, seconds = int(os.environ["PET_NODE_RANK"]), config.launch.train_start_seconds
        meet_nodes(os.environ["PET_MASTER_ADDR"], port, number=number, count=count, seconds=seconds)


def run_torchrun(words: Sequence[str], config: RunConfig) -> None:
    """Starts this node's processes and waits for them; hands SIGTERM on.

    Raises:
        ProcessesFailedError: one failed, or SIGTERM came.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = [f"--shutdown-timeout={_SHUTDOWN_SECONDS}"]
    if "PET_NNODES" not in os.environ:
        options += ["--standalone", f"--nproc-per-node={config.launch.train_processes_per_node}"]
    try:
        run.run(run.parse_args([*options, *words]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        raise _explained(error.failures) from error
    except SignalException as error:
        raise ProcessesFailedError("interrupted by SIGTERM: the next start resumes it", INTERRUPTED) from error


def _explained(failures: dict[int, Any]) -> ProcessesFailedError:
    """The first process's error first, then those of others that say something else."""
    codes = {failure.exitcode for failure in failures.values()}
    code = next((known for known in (WRONG_CALL, INTERRUPTED) if known in codes), FAILED)
    told = [(rank, _told(failure)) for rank, failure in sorted(failures.items())]
    causes = [entry for entry in told if not any(word in entry[1] for word in _CONSEQUENCES)] or told
    lines: list[str] = []
    for rank, text in causes:
        if not any(text in line for line in lines):
            lines.append(f"process {rank}: {text}")
    return ProcessesFailedError("; ".join(lines), code)


def _told(failure: Any) -> str:
    if failure.exitcode == INTERRUPTED:
        return "interrupted by SIGTERM after a checkpoint"
    data = failure.error_file_data.get("message", {}) if failure.error_file_data else {}
    message = data.get("message") if isinstance(data, dict) else data
    if not message:
        return f"ended with exit code {failure.exitcode} ({failure.signal_name()})"
    return str(message) if isinstance(message, str) else json.dumps(message)


if __name__ == "__main__":
    main()
