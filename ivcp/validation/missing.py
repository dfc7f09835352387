"""Checks that the videos exist, before any is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ivcp import storage
from ivcp.records import first_path
from ivcp.records.quarantine import UnusableVideosError
from ivcp.settings import DataConfig
from ivcp.validation.catalog import Catalog, read_video

_THREADS = 16
"""An S3 server answers after tens of milliseconds."""
_MOST_MISSING = 0.5
"""Share of rows without their video above which the folder must be wrong, and not single files."""


def find_missing(catalog: Catalog) -> None:
    """Notes in `catalog` which videos do not exist: seconds for 10,000 local ones."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in catalog.in_batches("SELECT id, name FROM video WHERE id > ?"):
            paths = [first_path(read_video(name)) for _, name in batch]
            remote = any(storage.is_s3(path) for path in paths)
            there = pool.map(_exists, paths) if remote else map(_exists, paths)
            missing = [
                (f"there is no file {path}", number)
                for (number, _), path, exists in zip(batch, paths, there, strict=True)
                if not exists
            ]
            catalog.change("UPDATE video SET reason = 'missing', detail = ? WHERE id = ?", missing)
    catalog.note_unusable()


def explain_missing_folder(catalog: Catalog, data: DataConfig) -> UnusableVideosError | None:
    """The error where most videos are missing and too many for `max_invalid_fraction`; else None.

    Then the others are noted as not looked at: nothing is decoded before the folder is right.
    """
    num_rows = catalog.number("SELECT COUNT(*) FROM clip")
    missing = catalog.number("SELECT COUNT(*) FROM clip WHERE reason IS NOT NULL")
    if missing <= num_rows * max(_MOST_MISSING, data.max_invalid_fraction):
        return None
    names = catalog.ask(
        "SELECT video.name FROM clip_video JOIN video ON video.id = clip_video.video WHERE video.reason IS NOT NULL "
        "ORDER BY clip_video.clip, clip_video.number LIMIT 3"
    )
    examples = [first_path(read_video(name)) for (name,) in names]
    catalog.ask(
        "UPDATE clip SET reason = 'not_checked', detail = 'most videos are missing: nothing was decoded' "
        "WHERE reason IS NULL"
    )
    return UnusableVideosError(_explain(missing, num_rows, examples, data))


def _explain(missing: int, num_rows: int, examples: Sequence[str], data: DataConfig) -> str:
    folder = data.media_dir or data.dataset_dir
    shown = folder if storage.is_s3(folder) else str(Path(folder).absolute())
    key = "media_dir" if data.media_dir else "media_dir is not set, so that paths start from dataset_dir"
    found = _nearest_folder(examples[0])
    return (
        f"the videos of {missing} of {num_rows} rows are not there; nothing was decoded. They were looked for below "
        f"{shown} ({key}), for example\n  " + "\n  ".join(examples) + (f"\n{found}" if found else "") + "\n"
        "Set media_dir to the folder or s3:// prefix that the paths in the rows start from"
    )


def _nearest_folder(path: str) -> str | None:
    """How far a local path exists."""
    if storage.is_s3(path):
        return None
    folder = Path(path).parent
    missing = None
    while not folder.is_dir() and folder != folder.parent:
        missing, folder = folder, folder.parent
    return f"{folder} exists, {missing} does not" if missing else f"{folder} exists, but not this file"


def _exists(path: str) -> bool:
    try:
        return storage.exists(path)
    except FileNotFoundError:  # the bucket
        return False
