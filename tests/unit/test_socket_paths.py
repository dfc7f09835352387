"""Worker processes behind a TMPDIR that is too long for the paths of sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

POOL = """
from ivcp.video.workers import WorkerPool
with WorkerPool(1) as pool:
    print(pool.submit(len, "abc", timeout_seconds=60).result(), flush=True)
"""
LOADER = """
import torch
from ivcp.inference.compute import Compute
from ivcp.inference.loop import run_batches
found = run_batches(
    [torch.ones(3)] * 2,
    lambda batch: batch,
    collate=lambda samples: {"sum": torch.stack(samples).sum()},
    batches=[[0, 1]],
    compute=Compute(torch.device("cpu")),
    num_workers=1,
)
print([int(batch["sum"]) for batch in found][0] // 2, flush=True)
"""


@pytest.mark.parametrize("script", [POOL, LOADER])
def test_workers_start_behind_a_long_tmpdir(script: str, tmp_path: Path):
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
