"""How people read a run in MLflow: its name, and the sections of its description."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from ivcp.records.markdown import escape
from ivcp.settings import RunConfig
from ivcp.tracking.outages import without_login

_LONGEST_CELL = 200
_VERBS = {"evaluation": "evaluated", "export": "exported", "serving": "served"}
_PLACES = frozenset({"output_dir", "export_dir", "mlflow_tracking_uri", "mlflow_run_id", "run_name", "report_to"})
"""Settings that say where a run writes: they stand last."""


def usual_run_name(config: RunConfig, step: str) -> str:
    """What a run is called that nobody has named: "action_cls lora of smollm2-video on sample"."""
    method = config.method
    what = f"{method.stage} {method.finetuning_type}"
    base = PurePosixPath(config.model.model_name_or_path or "a model").name
    data = f" on {', '.join(config.data.dataset)}" if config.data.dataset else ""
    verb = f", {_VERBS[step]}" if step in _VERBS else ""
    return f"{what} of {base}{data}{verb}"[:200]


def shown_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that are no defaults, for people: without the login that an address may hold."""
    changed = config.changed()
    return {key: without_login(value) if isinstance(value, str) else value for key, value in changed.items()}


def settings_table(config: RunConfig) -> str:
    """The settings that are no defaults, as Markdown."""
    changed = shown_settings(config)
    if not changed:
        return "All settings have their defaults."
    rows = sorted(changed.items(), key=lambda item: (item[0] in _PLACES, item[0]))
    return markdown_table(("setting", "value"), [(key, _words(value)) for key, value in rows])


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what would end a cell or begin a tag is escaped."""
    lines = [_line(head), _line(["---"] * len(head)), *(_line([escape(cell) for cell in row]) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _words(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
