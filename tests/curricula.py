"""A curriculum's file, and two files of settings that it may name."""

from pathlib import Path
from typing import Any

import yaml

FIRST = {"stage": "sft", "model_name_or_path": "models/base", "dataset": "questions"}
SECOND = {"stage": "action_cls", "model_name_or_path": "models/base", "dataset": "actions"}


def write_curriculum(folder: Path, entries: Any, **common: Any) -> Path:
    """Writes `curriculum.yaml` with these stages beside `questions.yaml` and `actions.yaml`."""
    (folder / "questions.yaml").write_text(yaml.safe_dump(FIRST))
    (folder / "actions.yaml").write_text(yaml.safe_dump(SECOND))
    path = folder / "curriculum.yaml"
    path.write_text(yaml.safe_dump({"curriculum": entries, **common}))
    return path
