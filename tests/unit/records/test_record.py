import json
from typing import ClassVar

import pytest

from ivcp.records import VersionedRecord


class Note(VersionedRecord):
    NEWEST_FORMAT: ClassVar[int] = 2

    text: str


def test_a_version_is_written_and_read(tmp_path):
    path = tmp_path / "note.json"
    Note(text="one").write(path)
    assert json.loads(path.read_text()) == {"format_version": 1, "text": "one"}
    assert Note.read(path) == Note(text="one")


@pytest.mark.parametrize("version", [{}, {"format_version": 1}, {"format_version": 2}])
def test_earlier_and_own_formats_are_read(tmp_path, version):
    path = tmp_path / "note.json"
    path.write_text(json.dumps(version | {"text": "one"}))
    assert Note.read(path).text == "one"


def test_a_newer_format_says_what_to_install(tmp_path):
    path = tmp_path / "note.json"
    path.write_text(json.dumps({"format_version": 3, "text": "one", "later": True}))
    with pytest.raises(ValueError, match=r"(?s)note.json is no Note.*format_version 3 is newer than 2.*install"):
        Note.read(path)
