from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ivcp.imports.importing import ImportRequest, ImportResult, import_dataset
from ivcp.records import Labels
from ivcp.settings import from_flat
from ivcp.validation.catalog import Catalog, CatalogRow
from ivcp.validation.rows.read import read_annotations

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
