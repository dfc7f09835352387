"""The pipelines that are installed: packages name theirs as entry points of the group `ivcp.pipelines`.

So the library runs and submits pipelines without importing the packages that define them.
"""

from __future__ import annotations

from typing import Any

from ivcp.packages import entry_points_of

GROUP = "ivcp.pipelines"
ACTION_CLS = "action-cls"


def load_pipeline(name: str = ACTION_CLS, *, in_parts: bool = False) -> Any:
    """kfp's pipeline of this name, made anew; `in_parts` prepares clips in several pods side by side.

    Raises:
        ValueError: no installed package has one.
    """
    found = entry_points_of(GROUP)
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(f"there is no pipeline {name}: installed are {known}; install ivcp again (pip install -e .)")
    return found[name].load()(in_parts=in_parts)
