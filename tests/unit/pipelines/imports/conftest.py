from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.artifacts import Labels
from components.config import from_flat
from components.data_validation.catalog import Catalog, CatalogRow
from components.data_validation.read import read_annotations
from pipelines.imports.importing import ImportRequest, ImportResult, import_dataset

_KEYS = {"train": "dataset", "val": "eval_dataset", "test": "test_dataset"}


class Annotations(NamedTuple):
    labels: Labels
    rows: list[CatalogRow]


class Importer:
    """Imports into a folder, and reads what was written as a run would."""

    def __init__(self, folder: Path) -> None:
        self.dataset_dir = folder / "data"
        self.result: ImportResult | None = None

    def __call__(self, layout: str, *sources: Path | str, **wishes: Any) -> Annotations:
        self.write(layout, *sources, **wishes)
        return self.read(action_token=wishes.get("action_token", "<ACTION>"))

    def write(self, layout: str, *sources: Path | str, name: str = "mine", **wishes: Any) -> ImportResult:
        words = tuple(str(source) for source in sources)
        self.result = import_dataset(
            ImportRequest(layout=layout, sources=words, name=name, dataset_dir=self.dataset_dir, **wishes)
        )
        return self.result

    def read(self, **settings: Any) -> Annotations:
        assert self.result is not None
        named = {_KEYS.get(name.rpartition("_")[2], "dataset"): name for name in self.result.rows}
        with Catalog() as catalog:
            config = from_flat({**named, "dataset_dir": str(self.dataset_dir), **settings})
            labels = read_annotations(config, catalog)
            return Annotations(labels, list(catalog.usable()))

    def rows(self, file: str = "annotations.json") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.dataset_dir / "mine" / file).read_text(encoding="utf-8"))
        return rows

    @property
    def registry(self) -> dict[str, Any]:
        entries: dict[str, Any] = json.loads((self.dataset_dir / "dataset_info.json").read_text(encoding="utf-8"))
        return entries


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(tmp_path)


@pytest.fixture
def videos(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Makes files of these names, whose content nobody looks at here."""

    def make(names: Iterable[str]) -> Path:
        for name in names:
            file = tmp_path / "videos" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"video")
        return tmp_path / "videos"

    return make
