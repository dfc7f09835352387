"""Environment variables from secrets and config maps that are mounted as files, a file for each variable.

On Kubeflow Pipelines 2.14 a step's environment cannot come from a secret that may be missing; its files can.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTED = "/etc/ivcp"
"""A folder in it for each secret or config map."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""Other files there are no variables: certificates, and Kubernetes' own links."""


def read_mounted(folder: Path = Path(MOUNTED)) -> None:
    """Sets the environment variables that the files in `folder` hold, but for those that are set already."""
    for file in sorted(folder.glob("*/*")):
        if _NAME.fullmatch(file.name) and file.is_file():
            os.environ.setdefault(file.name, file.read_text(encoding="utf-8").strip())
