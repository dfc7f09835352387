"""The pipelines that are installed: packages name theirs as entry points of the group `ivcp.pipelines`.

So the library runs and submits pipelines without importing the packages that define them.
"""

from __future__ import annotations

from typing import Any

from ivcp.packages import entry_points_of

GROUP = "ivcp.pipelines"
_ONE, _SEVERAL = "action-cls", "curriculum"
"""Names of the entry points."""


def load_pipeline(*, stages: int = 1, in_parts: bool = False) -> Any:
    """kfp's pipeline for one stage of training, or for a curriculum of several, made anew.

    `in_parts` prepares clips in several pods side by side.

    Raises:
        ValueError: no installed package has one.
    """
    found, name = entry_points_of(GROUP), _ONE if stages == 1 else _SEVERAL
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(f"there is no pipeline {name}: installed are {known}; install ivcp again (pip install -e .)")
    options = {} if stages == 1 else {"stages": stages}
    return found[name].load()(**options, in_parts=in_parts)
