"""Changes to the JSON files of a model directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ivcp.storage.atomic import write_whole


def change_json(file: Path, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Puts what `change` makes of a file's object in its place."""
    content = change(json.loads(file.read_text(encoding="utf-8")))
    write_whole(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
