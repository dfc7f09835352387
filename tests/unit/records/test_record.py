import json
import math
from typing import ClassVar

import pytest
from pydantic import ValidationError

from ivcp.records import VersionedRecord
from ivcp.records.export import MergeCheck


class Note(VersionedRecord):
    NEWEST_FORMAT: ClassVar[int] = 2

    text: str


def test_a_version_is_written_and_read(tmp_path):
    path = tmp_path / "note.json"
    Note(text="one").write(path)
    assert json.loads(path.read_text()) == {"format_version": 1, "text": "one"}
    assert Note.read(path) == Note(text="one")


def test_a_record_holds_no_number_that_is_not_finite(tmp_path):
    """An evaluation of a diverged model would else be exported, whoever wrote the file."""
    with pytest.raises(ValidationError, match="finite number"):
        MergeCheck(clips=1, max_logit_difference=math.nan, dtype="float32")
    path = tmp_path / "check.json"
    path.write_text('{"clips": 1, "max_logit_difference": NaN, "dtype": "float32"}')
    with pytest.raises(
        ValueError, match=r"check.json is no MergeCheck: max_logit_difference: Input should be a finite"
    ):
        MergeCheck.read(path)


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
