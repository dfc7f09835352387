import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from ivcp.cli.terminal import explain
from ivcp.packages import VERSION, entry_points_of, installed_packages, own_version
from tests.conftest import REPOSITORY


def test_the_version_is_the_projects():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION == own_version()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe no text"])
@pytest.mark.parametrize("name", ["broken-1.0", "ivcp-0.1.0", "-1.0", "torch-2.13.0"])
def test_empty_metadata_change_nothing(name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before, packages = entry_points_of("ivcp.pipelines"), installed_packages()
    (tmp_path / f"{name}.dist-info").mkdir()
    if content:
        (tmp_path / f"{name}.dist-info" / "METADATA").write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert own_version() == VERSION
    assert entry_points_of("ivcp.pipelines") == before
    assert installed_packages() == packages
    assert "action-cls" in before


def test_every_package_has_its_version():
    assert installed_packages()["torch"] == version("torch")


def test_a_folder_without_a_name_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Python's own `entry_points()` fails on it, which torch and pydantic call when they are imported."""
    (tmp_path / "-orch-2.13.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    code, message = explain(TypeError("expected string or bytes-like object, got 'NoneType'"))
    assert (code, message.endswith(f"left {tmp_path / '-orch-2.13.0.dist-info'}: remove it")) == (1, True)
