"""Directories that are built as a whole or not at all, and reused while their parameters stay the same."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

Parameters = Mapping[str, str | int | float | bool]


def build_once(output_dir: Path, *, marker: str, parameters: Parameters, build: Callable[[Path], None]) -> bool:
    """Build a directory unless it is already there with these parameters.

    The work is done in a directory beside ``output_dir`` that takes its name at the end, so that an
    interrupted build leaves nothing half-finished behind.

    Args:
        output_dir: The directory that is wanted. One with other parameters is replaced.
        marker: Name of the JSON file in it that holds the parameters.
        parameters: Everything that the content depends on.
        build: Fills the empty directory it is given.

    Returns:
        Whether it was built; False when it is reused.

    Raises:
        FileExistsError: ``output_dir`` holds files, but not the marker: it is somebody else's.
    """
    wanted = dict(parameters)
    if _read_marker(output_dir, marker) == wanted:
        logger.info("%s is complete, it is used as it is", output_dir)
        return False
    _refuse_foreign_directory(output_dir, marker)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}.") as scratch:
        work_dir = Path(scratch) / output_dir.name
        work_dir.mkdir()
        build(work_dir)
        (work_dir / marker).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        if output_dir.exists():
            shutil.rmtree(output_dir)
        work_dir.rename(output_dir)
    return True


def _read_marker(output_dir: Path, marker: str) -> dict[str, str | int | float | bool] | None:
    try:
        content = json.loads((output_dir / marker).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _refuse_foreign_directory(output_dir: Path, marker: str) -> None:
    if output_dir.exists() and any(output_dir.iterdir()) and not (output_dir / marker).exists():
        raise FileExistsError(
            f"{output_dir} holds files but no {marker}, so it was not built here and is left alone: "
            f"name another directory, or remove it first"
        )
