"""What is known of installed packages, where the metadata of some are broken.

An interrupted `pip install` leaves an empty `*.dist-info` folder: its name and version are None, and Python's own
`entry_points()` fails where even the folder has no name.
"""

from __future__ import annotations

from importlib import metadata

VERSION = "0.1.0"
"""Of this project, as `pyproject.toml` says it."""


def own_version() -> str:
    """The installed version of this project."""
    try:
        return metadata.version("ivcp") or VERSION
    except (metadata.PackageNotFoundError, FileNotFoundError):  # the latter where importlib_metadata was imported
        return VERSION


def entry_points_of(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of a group by their names; of two of a name, the one that Python would import from."""
    found: dict[str, metadata.EntryPoint] = {}
    for distribution in metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == group:
                found.setdefault(entry.name, entry)
    return found
