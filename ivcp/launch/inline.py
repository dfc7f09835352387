"""Trains in the step itself: in this process, or with torchrun in several on this node."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ivcp import storage
from ivcp.kubernetes.api import Terminated, ends_on_sigterm
from ivcp.launch.node import FAILURE_FILE_VARIABLE
from ivcp.launch.worker import Work
from ivcp.records import INDEX_FILE, RUN_CONFIG_FILE, TRAINING_RESULT_FILE, PreparedIndex
from ivcp.settings import RunConfig, save_config
from ivcp.stages.registry import check_stage
from ivcp.training.checkpoints.mirror import run_key
from ivcp.training.loop.interruption import INTERRUPTED, TrainingInterrupted
from ivcp.training.result import TrainingResult
from ivcp.training.train import train_model


class TrainingProcessesError(RuntimeError):
    """The processes that torchrun started failed; the message has the first one's error first."""


def train_inline(config: RunConfig, *, index: PreparedIndex, output_dir: Path, run_id: str) -> TrainingResult:
    """Trains on this node; writes a complete adapter directory to `output_dir`. Errors are `train_model`'s, and:

    Raises:
        TrainingProcessesError: several processes were asked for, and one failed.
        TrainingInterrupted: SIGTERM came; the same step again resumes.
    """
    root = config.launch.checkpoints_uri
    mirror_uri = None if root is None else storage.join(root, run_key(config, index, run_id))
    if config.launch.train_processes_per_node == 1:
        return train_model(config, index=index, output_dir=output_dir, mirror_uri=mirror_uri)
    check_stage(config)
    with tempfile.TemporaryDirectory(prefix="ivcp-training-") as folder:
        scratch = Path(folder)
        save_config(config, scratch / RUN_CONFIG_FILE)
        index.write(scratch / INDEX_FILE)
        paths = (str(scratch / RUN_CONFIG_FILE), str(scratch / INDEX_FILE), str(output_dir.resolve()))
        work = Work(run_config=paths[0], index=paths[1], output_dir=paths[2], mirror_uri=mirror_uri)
        work.write(scratch / "work.json")
        _run(scratch / "work.json", failure_file=scratch / "failure.txt", output_dir=output_dir)
    return TrainingResult.read(output_dir / TRAINING_RESULT_FILE)


def _run(work: Path, *, failure_file: Path, output_dir: Path) -> None:
    command = [sys.executable, "-m", "ivcp.launch.node", str(work)]
    environment = os.environ | {FAILURE_FILE_VARIABLE: str(failure_file)}
    with subprocess.Popen(command, env=environment) as process, ends_on_sigterm():
        try:
            code = process.wait()
        except (Terminated, KeyboardInterrupt):
            process.terminate()
            process.wait()
            raise TrainingInterrupted(str(output_dir)) from None
    if code == INTERRUPTED:
        raise TrainingInterrupted(str(output_dir))
    if code != 0:
        reason = failure_file.read_text(encoding="utf-8") if failure_file.exists() else f"exit code {code}"
        raise TrainingProcessesError(reason)
