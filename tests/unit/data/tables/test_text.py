"""Compressed files, and files that are no text."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pytest

from ivcp.data.registry import AnnotationError, read_rows
from ivcp.data.tables import how_to_convert

ROWS = [{"a": "1"}, {"a": "2"}]
FILES = {"a.json.gz": '[{"a": "1"}, {"a": "2"}]', "a.jsonl.GZ": '{"a": "1"}\n{"a": "2"}', "a.csv.gz": "a\n1\n2\n"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", [*FILES, "named_as_if_it_were_plain.json"])
def test_gzip(tmp_path: Path, name: str, encoding: str) -> None:
    content = FILES.get(name, FILES["a.json.gz"])
    (tmp_path / name).write_bytes(gzip.compress(content.encode(encoding)))
    assert list(read_rows(tmp_path / name)) == ROWS


def test_another_encoding_in_gzip(tmp_path: Path) -> None:
    path = tmp_path / "my rows.csv.gz"
    path.write_bytes(gzip.compress("a,b\n1,跑步\n".encode("gbk")))
    with pytest.raises(AnnotationError, match=r"got the byte 0xc5 in line 2: convert it to UTF-8, e.g. from GBK: gunz"):
        list(read_rows(path))
    assert how_to_convert(path).endswith("gunzip -c 'my rows.csv.gz' | iconv -f GB18030 -t UTF-8 > 'my rows.utf8.csv'")


def test_gzip_that_is_cut_off_or_damaged(tmp_path: Path) -> None:
    whole = gzip.compress(b"[" + b'{"a": "1"},' * 10_000 + b"{}]")
    for content in (whole[:-20], whole[:40] + b"x" * 40 + whole[80:]):
        (tmp_path / "a.json.gz").write_bytes(content)
        with pytest.raises(AnnotationError, match=r"a.json.gz cannot be unpacked \(.*\): compress it again"):
            list(read_rows(tmp_path / "a.json.gz"))


def test_other_formats_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "x")
    (tmp_path / "bz2.json").write_bytes(bz2.compress(b"[]"))
    (tmp_path / "xz.json").write_bytes(lzma.compress(b"[]"))
    (tmp_path / "parquet.json").write_bytes(b"PAR1 and so on")
    for name, what in (
        ("zip.csv", "is a zip archive, as Excel's workbooks are: unpack it, or save the workbook as CSV UTF-8"),
        ("bz2.json", "is compressed with bzip2"),
        ("xz.json", "is compressed with xz"),
        ("parquet.json", "is a Parquet file: give it a name that ends with .parquet"),
    ):
        with pytest.raises(AnnotationError, match=what):
            list(read_rows(tmp_path / name))
