from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ivcp.cli.main import app
from tests.predictor_api.server import PredictorApi, predictor_api


@pytest.fixture
def api() -> Iterator[PredictorApi]:
    with predictor_api() as found:
        yield found


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wide terminal, no key, and a folder with four videos, two of which are none."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.delenv("IVCP_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, content in {"a": b"\x00 one", "b": b"bad", "c": b"\x02 two", "d": b"unsure"}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)


@pytest.fixture
def ivcp() -> Callable[..., Result]:
    def call(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return call
