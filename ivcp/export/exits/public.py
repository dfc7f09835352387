"""What of a model directory others may read: its files without what only its machine knows.

Local paths say who trained where. A base model is named by its hub id, where it has one, or by its last name; what the
export step and the deployment write for each other stays at home, and so do the hashes of the clips that the model has
seen: those of groups are hashes of names, which can be guessed.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ivcp.models.path import looks_local
from ivcp.records import RUN_CONFIG_FILE
from ivcp.records.evaluation import SMOKE_CLIP_FILE
from ivcp.records.export import EXPORT_RESULT_FILE
from ivcp.records.language_evaluation import SMOKE_QUESTION_FILE
from ivcp.settings.places import is_remote_model

_IN_THE_CACHE = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/")
"""The folder that huggingface_hub downloads a model to says its id."""


def hub_id(model_name_or_path: str) -> str | None:
    """A base model's id on the hub; null for a folder or an address that does not tell."""
    if found := _IN_THE_CACHE.search(model_name_or_path):
        return f"{found['owner']}/{found['name']}"
    is_elsewhere = is_remote_model(model_name_or_path) or looks_local(model_name_or_path)
    return None if is_elsewhere or Path(model_name_or_path).exists() else model_name_or_path


def public_name(model_name_or_path: str) -> str:
    """What others may know of where a base model came from: its hub id, or the last part of its path or address."""
    return hub_id(model_name_or_path) or PurePosixPath(model_name_or_path.replace("\\", "/")).name


@contextmanager
def public_files(model_dir: Path) -> Iterator[Path]:
    """A temporary folder that stands for `model_dir` to others: links to its files, and rewritten small ones.

    Hidden files are left out.
    """
    from ivcp.data.seen_clips import SEEN_CLIPS_FILE
    from ivcp.stages.model_info import MODEL_INFO_FILE  # late: both are heavy, and the names above are asked for early

    with tempfile.TemporaryDirectory(prefix="ivcp-public-") as made:
        folder = Path(made)
        for path in _visible(
            model_dir, at_home={EXPORT_RESULT_FILE, SEEN_CLIPS_FILE, SMOKE_CLIP_FILE, SMOKE_QUESTION_FILE}
        ):
            target = folder / path.relative_to(model_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
        _rewrite(folder / RUN_CONFIG_FILE, _without_path)
        _rewrite(folder / MODEL_INFO_FILE, _without_base_path)
        yield folder


def _visible(model_dir: Path, *, at_home: Collection[str]) -> list[Path]:
    return sorted(
        path
        for path in model_dir.rglob("*")
        if path.is_file()
        and path.name not in at_home
        and not any(part.startswith(".") for part in path.relative_to(model_dir).parts)
    )


def _rewrite(file: Path, change: Any) -> None:
    """Puts the changed JSON in the place of a link."""
    content = change(json.loads(file.read_text(encoding="utf-8")))
    file.unlink()
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_path(settings: dict[str, Any]) -> dict[str, Any]:
    name = settings.get("model_name_or_path")
    return settings | ({"model_name_or_path": public_name(name)} if name else {})


def _without_base_path(info: dict[str, Any]) -> dict[str, Any]:
    base = info.get("base")
    return info | ({"base": base | {"name": public_name(base["name"])}} if base else {})
