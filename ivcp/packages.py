"""What is known of installed packages, where the metadata of some are broken.

An interrupted `pip install` leaves an empty `*.dist-info` folder: its name and version are None, and Python's own
`entry_points()` fails where even the folder has no name.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

VERSION = "0.1.0"
"""Of this project, as `pyproject.toml` says it."""


def own_version() -> str:
    """The installed version of this project."""
    try:
        return metadata.version("ivcp") or VERSION
    except (OSError, ValueError, ImportError):  # none, empty ones where importlib_metadata was imported, or no text
        return VERSION


def installed_packages() -> dict[str, str]:
    """The versions of the installed distributions by their names, without those whose metadata are broken."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        with suppress(OSError, ValueError):
            name, version = distribution.metadata["Name"], distribution.version
            if name and version:
                versions.setdefault(name, version)
    return versions


def nameless_distributions() -> list[Path]:
    """Folders that an interrupted `pip install` left without even a name: with one of them, nobody's plugins load."""
    return [folder for place in sys.path for folder in Path(place).glob("-*.dist-info")]


def entry_points_of(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of a group by their names; of two of a name, the one that Python would import from."""
    found: dict[str, metadata.EntryPoint] = {}
    for distribution in metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == group:
                found.setdefault(entry.name, entry)
    return found
