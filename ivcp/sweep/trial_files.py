"""What a sweep and a trial of it write for each other, in the trial's folder."""

from __future__ import annotations

import json
from pathlib import Path

VALUES_FILE, STOP_FILE, MODEL_DIR = "values.jsonl", "stop", "model"


def write_value(folder: Path, step: int, value: float) -> None:
    """Adds what a validation found."""
    with (folder / VALUES_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "value": value}) + "\n")


def read_values(folder: Path) -> list[tuple[int, float]]:
    """Step and value of each validation so far."""
    file = folder / VALUES_FILE
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []  # the last may be half written
    return [(line["step"], line["value"]) for line in map(json.loads, lines)]
