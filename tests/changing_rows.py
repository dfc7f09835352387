"""Rows that change between runs, and the splits that each run gives them.

Videos are small files here, whose bytes stand for what is in them: nothing is decoded.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ivcp.settings import from_flat
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from ivcp.validation.splits.assign import keep_same_content_together
from ivcp.validation.splits.kept import keep_splits
from tests.data_sets import sharegpt_row

LABELS = ("run", "sit", "walk")


@dataclass(frozen=True)
class Row:
    file: str
    content: str
    label: str
    group: str


def rows_of(num_groups: int, per_group: int = 3) -> list[Row]:
    return [
        Row(f"{group}_{clip}.mp4", f"content {group} {clip}", LABELS[(group + clip) % 3], f"person {group}")
        for group in range(num_groups)
        for clip in range(per_group)
    ]


def write(folder: Path, rows: Sequence[Row], *, name: str = "actions", column: str = "group") -> None:
    for row in rows:
        (folder / row.file).write_text(row.content)
    entries = [sharegpt_row(row.file, row.label, **{column: row.group}) for row in rows]
    (folder / f"{name}.json").write_text(json.dumps(entries))
    registry = folder / "dataset_info.json"
    known = json.loads(registry.read_text()) if registry.exists() else {}
    registry.write_text(json.dumps(known | {name: {"file_name": f"{name}.json", "formatting": "sharegpt"}}))


def split_clips(folder: Path, *, keep: bool = True, **settings: Any) -> dict[str, str]:
    """The split of each content, as validation gives and keeps it."""
    config = from_flat({"dataset": "actions", "dataset_dir": str(folder), **settings})
    with Catalog() as catalog:
        read_annotations(config, catalog)
        look_at_videos(catalog)
        keep_same_content_together(catalog, config)
        if keep:
            keep_splits(catalog, config.data)
        return {Path(str(row.video)).read_text(): row.split for row in catalog.usable()}


def look_at_videos(catalog: Catalog) -> None:
    """Notes the content of each file."""
    for number, name in catalog.ask("SELECT id, name FROM video").fetchall():
        digest = hashlib.sha256(Path(json.loads(name)).read_bytes()).hexdigest()
        catalog.ask("UPDATE video SET sha256 = ?, num_frames = 1 WHERE id = ?", digest, number)


def count(splits: dict[str, str]) -> dict[str, int]:
    return {split: list(splits.values()).count(split) for split in ("train", "val", "test")}


def changed(rows: list[Row], chance: random.Random, step: int) -> list[Row]:
    """Rows added, removed, renamed and reordered."""
    rows = [row for row in rows if chance.random() > 0.15]
    groups = sorted({row.group for row in rows})
    renamed = {group: f"{group}'" for group in groups if chance.random() < 0.2}
    if chance.random() < 0.3 and len(groups) > 4:
        renamed[groups[0]] = groups[1]  # two groups become one
    rows = [replace(row, group=renamed.get(row.group, row.group)) for row in rows]
    for number in range(chance.randint(0, 12)):
        group = chance.choice([*groups, f"new {step} {number % 3}"])
        name = f"{step}_{number}"
        rows.append(Row(f"n{name}.mp4", f"new content {name}", chance.choice(LABELS), group))
    if chance.random() < 0.3:
        copied = chance.choice(rows)  # the same bytes in another group
        rows.append(replace(copied, file=f"copy{step}.mp4", group=chance.choice(groups)))
    chance.shuffle(rows)
    return rows
