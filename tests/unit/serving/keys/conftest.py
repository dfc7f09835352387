from collections.abc import Callable
from pathlib import Path

import pytest

from ivcp.serving.keys import KeyRing, ring


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ring's clock, in seconds: a test moves its one number."""
    now = [1000.0]
    monkeypatch.setattr(ring.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A key for inference, and one for an operator."""
    inference, operator = tmp_path / "inference", tmp_path / "operator"
    for folder, name in ((inference, "alice"), (operator, "olga")):
        folder.mkdir()
        (folder / name).write_text(f"key-of-{name}-0123456789\n")
    return inference, operator


@pytest.fixture
def keys(folders: tuple[Path, Path], clock: list[float]) -> KeyRing:
    return KeyRing(*folders)


@pytest.fixture
def asks(keys: KeyRing) -> Callable[[str], str | None]:
    """What a key is: its name, or the code with which it is refused."""
    from ivcp.serving.keys import KeyRefusedError

    def call(key: str) -> str:
        try:
            return str(keys.check("inference", f"Bearer {key}", None))
        except KeyRefusedError as error:
            return error.code

    return call
