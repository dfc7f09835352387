import sys
import tomllib
from pathlib import Path

import pytest

from ivcp.settings.package import VERSION, entry_points_of, own_version
from tests.conftest import REPOSITORY


def test_the_version_is_the_projects():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION == own_version()


@pytest.mark.parametrize("name", ["broken-1.0", "ivcp-0.1.0", "-1.0", "torch-2.13.0"])
def test_empty_metadata_change_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = entry_points_of("ivcp.pipelines")
    (tmp_path / f"{name}.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert own_version() == VERSION
    assert entry_points_of("ivcp.pipelines") == before
    assert "action-cls" in before
