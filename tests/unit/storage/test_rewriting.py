import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ivcp import storage


def _adding(line: str) -> Callable[[Path | None, Path], None]:
    def change(old: Path | None, new: Path) -> None:
        new.write_text((old.read_text() if old else "") + f"{line}\n")

    return change


def test_no_writer_loses_another_ones_change(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "lines.txt"
    threads = [threading.Thread(target=storage.rewrite, args=(str(path), _adding(f"{n}"))) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text().split(), key=int) == [f"{n}" for n in range(12)]


def test_a_file_may_be_named_by_its_uri(tmp_path: Path) -> None:
    storage.rewrite((tmp_path / "a b.txt").as_uri(), _adding("first"))
    assert (tmp_path / "a b.txt").read_text() == "first\n"


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("first\n")

    def fail(old: Path | None, new: Path) -> None:
        new.write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        storage.rewrite(str(path), fail)
    assert path.read_text() == "first\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lines.txt.lock", "lines.txt"]
