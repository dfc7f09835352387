"""What a run was made of: versions, the state of the code, the machine, the data."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ivcp.packages import installed_packages
from ivcp.records import PreparedIndex, VersionedRecord
from ivcp.settings import RunConfig

RUN_RECORD_FILE = "run_record.json"
_SAYS_NOTHING = {"output_dir", "run_name", "resume_from_checkpoint", "overwrite_output_dir", "checkpoints_uri"}


class RunRecord(VersionedRecord):
    """`run_record.json` in the adapter directory."""

    command: tuple[str, ...]
    python: str
    platform: str
    packages: dict[str, str]
    """Every installed distribution and its version."""
    git_commit: str | None
    """Of this project's code; null where it is no git checkout."""
    git_changed: bool | None
    """Whether files differ from that commit."""
    devices: tuple[str, ...]
    num_processes: int
    data_fingerprint: str
    """Hash of the validated annotations."""
    prepared_fingerprint: str
    """Hash of everything the prepared samples depend on."""
    settings: dict[str, Any]
    """All settings of the run; `run_config.json` has those of them that say what the model means."""

    @property
    def tags(self) -> dict[str, str]:
        """The short facts, for the tracked run."""
        return {
            "ivcp.git_commit": f"{self.git_commit or 'unknown'}{' (changed)' if self.git_changed else ''}",
            "ivcp.torch": self.packages["torch"],
            "ivcp.transformers": self.packages["transformers"],
            "ivcp.devices": ", ".join(self.devices),
            "ivcp.num_processes": str(self.num_processes),
            "ivcp.data_fingerprint": self.data_fingerprint,
            "ivcp.prepared_fingerprint": self.prepared_fingerprint,
        }


def describe_run(config: RunConfig, index: PreparedIndex, *, num_processes: int) -> RunRecord:
    """What this process runs on and with."""
    code = Path(__file__).parent
    commit, changes = _git(code, "rev-parse", "HEAD"), _git(code, "status", "--porcelain")
    return RunRecord(
        command=tuple(sys.argv),
        python=platform.python_version(),
        platform=platform.platform(),
        packages=installed_packages(),
        git_commit=commit,
        git_changed=None if changes is None else bool(changes),
        devices=tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())) or ("cpu",),
        num_processes=num_processes,
        data_fingerprint=index.data_fingerprint,
        prepared_fingerprint=index.fingerprint,
        settings=_settings(config),
    )


def changes_since(start: Path, record: RunRecord) -> str:
    """What of a run is another than of the one whose checkpoint `start` it goes on from; empty where that is nothing,
    or not known.

    Places and names of runs say nothing. Clips that were prepared otherwise may hold other rows, or learn other words.
    """
    file = start.parent / RUN_RECORD_FILE
    if not file.is_file():
        return ""
    earlier = RunRecord.read(file)
    changed = [
        f"{key} {earlier.settings.get(key)!r} is {value!r}"
        for key, value in record.settings.items()
        if key not in _SAYS_NOTHING and earlier.settings.get(key) != value
    ]
    if earlier.data_fingerprint != record.data_fingerprint:
        changed.append("the annotations are others")
    elif earlier.prepared_fingerprint != record.prepared_fingerprint:
        changed.append("the clips are prepared otherwise")
    return ", ".join(changed)


def _settings(config: RunConfig) -> dict[str, Any]:
    """All settings; where the training started is a path that holds for commands in other folders too."""
    settings, start = config.flat(), config.method.adapter_name_or_path
    return settings | ({"adapter_name_or_path": str(Path(start).resolve())} if start and Path(start).is_dir() else {})


def _git(folder: Path, *command: str) -> str | None:
    """What git answers; null where there is no git or no checkout."""
    try:
        answer = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
