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
