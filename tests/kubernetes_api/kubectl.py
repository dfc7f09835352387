"""The real kubectl, as a client of the API server of a test."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Kubectl:
    """The real kubectl, bound to the API server of a test."""

    program: str
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, fails: bool | None = False) -> str:
        """Its output and its messages; a failure fails the test unless it is expected, or (null) of no interest."""
        done = subprocess.run(
            [
                self.program,
                "--kubeconfig",
                str(self.kubeconfig),
                "--cache-dir",
                str(self.kubeconfig.parent),
                *arguments,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        output = done.stdout + done.stderr
        assert fails is None or (done.returncode != 0) == fails, output
        return output


def find_kubectl() -> str:
    """The program, or the test is skipped."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed")
    return found
