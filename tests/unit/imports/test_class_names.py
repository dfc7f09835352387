import pytest

from ivcp.imports.class_names import read_class_names
from ivcp.imports.listing import ImportRefusedError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classInd.txt", "1 run\n2 sit down\n"),
        ("names.txt", "run\nsit down\n"),
        ("ids.csv", "1,sit down\n0,run\n"),
        ("list.json", '["run", "sit down"]'),
        ("labels.json", '{"label_names": ["run", "sit down"], "reversed_pairs": [["run", "sit down"]]}'),
        ("ids.json", '{"sit down": "1", "run": "0"}'),
        ("names.json", '{"0": "run", "1": "sit down"}'),
    ],
)
def test_files_of_class_names(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name).labels.label_names == ("run", "sit down")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "run\n", "at least two classes, got run"),
        ("a.txt", "run\nsit\nrun\n", "stand there twice: run"),
        ("a.txt", "0 run\n2 sit\n", "each name and each id once"),
        ("a.json", '{"run": 0, "sit": 0}', "each name and each id once"),
        ("a.json", "3", "expected a list of class names"),
        ("a.json", "{", "not valid JSON"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ImportRefusedError, match=message):
        read_class_names(tmp_path / name)


def test_names_have_no_spaces_around_them(tmp_path):
    (tmp_path / "a.json").write_text('[" run", "sit "]', encoding="utf-8-sig")
    assert read_class_names(tmp_path / "a.json").labels.label_names == ("run", "sit")
    (tmp_path / "b.json").write_text('["run", " "]')
    with pytest.raises(ImportRefusedError, match=r"b.json: the name of class 1 is blank"):
        read_class_names(tmp_path / "b.json")


def test_another_encoding_says_how_to_convert(tmp_path):
    (tmp_path / "names.txt").write_text("跑步\n坐下\n", encoding="gbk")
    with pytest.raises(ImportRefusedError, match=r"names.txt: .*: convert it to UTF-8, e.g. from GBK: iconv") as caught:
        read_class_names(tmp_path / "names.txt")
    assert "--encoding" not in str(caught.value)


def test_whether_a_file_counts_from_one(tmp_path):
    for text, from_one in (("1 run\n2 sit\n", True), ("0 run\n1 sit\n", False), ("run\nsit\n", False)):
        (tmp_path / "a.txt").write_text(text)
        assert read_class_names(tmp_path / "a.txt").from_one is from_one
