import json
from pathlib import Path

import pytest

from ivcp.data.registry import AnnotationError, data_files, read_dataset_info


def register(place: Path, /, **entry: object) -> str:
    (place / "dataset_info.json").write_text(json.dumps({"actions": entry, "other": {"file_name": "b.json"}}))
    return str(place)


def test_documented_defaults_fill_partial_columns_and_tags(tmp_path: Path) -> None:
    folder = register(tmp_path, file_name="a.json", columns={"videos": "clips"}, tags={"role_tag": "who"})
    info = read_dataset_info("actions", folder)
    assert (info.formatting, info.ranking, info.split) == ("alpaca", False, "train")
    assert (info.columns.messages, info.columns.prompt, info.columns.videos) == (
        "conversations",
        "instruction",
        "clips",
    )
    assert (info.tags.role_tag, info.tags.content_tag, info.tags.user_tag) == ("who", "value", "human")


def test_openai_formatting_brings_its_own_keys(tmp_path: Path) -> None:
    folder = register(tmp_path, file_name="a.json", formatting="openai", tags={"user_tag": "User"})
    info = read_dataset_info("actions", folder)
    assert info.columns.messages == "messages"
    assert (info.tags.role_tag, info.tags.content_tag, info.tags.user_tag) == ("role", "content", "User")


def test_the_registry_of_llama_factory_is_read(shared_data: Path) -> None:
    folder = str(shared_data / "annotations" / "LLaMA-Factory")
    info = read_dataset_info("mllm_video_demo", folder)
    assert [path.name for path in data_files(info, folder)] == ["mllm_video_demo.json"]
    with pytest.raises(AnnotationError, match=r"alpaca_en: expected file_name .*hf_hub_url, ms_hub_url, om_hub_url"):
        read_dataset_info("alpaca_en", folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"hf_hub_url": "a/b"}, "hf_hub_url cannot be read here: download the data"),
        ({"script_url": "a"}, "script_url cannot be read here"),
        ({}, "expected file_name or cloud_file_name; it has none"),
        ({"file_name": "a.json", "ranking": True}, "preference pairs have no class"),
        ({"file_name": "a.json", "formating": "sharegpt"}, "unknown key formating; did you mean formatting?"),
        ({"file_name": "a.json", "columns": {"mesages": "x"}}, "unknown key columns.mesages; did you mean messages?"),
        ({"file_name": "a.json", "formatting": "chatml"}, "formatting = 'chatml'"),
        ({"cloud_file_name": "gs://b/a.json"}, "expected an s3:// URI"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        read_dataset_info("actions", register(tmp_path, **entry))
    assert message in str(caught.value)


def test_unknown_data_set_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="did you mean actions"):
        read_dataset_info("action", register(tmp_path, file_name="a.json"))
    with pytest.raises(AnnotationError, match="set dataset_dir"):
        read_dataset_info("actions", str(tmp_path / "nowhere"))


def test_a_folder_gives_the_files_of_its_split(tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "en" / "v2"
    folder.mkdir(parents=True)
    for name in ("train-0.json", "train-1.jsonl", "test.csv", "notes.md"):
        (folder / name).touch()
    base = {"file_name": "clips", "folder": "en", "subset": "v2"}
    train = read_dataset_info("actions", register(tmp_path, **base))
    assert [path.name for path in data_files(train, str(tmp_path))] == ["train-0.json", "train-1.jsonl"]
    test = read_dataset_info("actions", register(tmp_path, **base, split="test"))
    assert [path.name for path in data_files(test, str(tmp_path))] == ["test.csv"]
    missing = read_dataset_info("actions", register(tmp_path, file_name="nowhere.json"))
    with pytest.raises(AnnotationError, match=r"nowhere.json does not exist"):
        data_files(missing, str(tmp_path))


def test_a_registry_with_a_byte_order_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le"):
        (tmp_path / "dataset_info.json").write_text('{"actions": {"file_name": "a.TSV"}}', encoding=encoding)
        (tmp_path / "a.TSV").touch()
        info = read_dataset_info("actions", str(tmp_path))
        assert [path.name for path in data_files(info, str(tmp_path))] == ["a.TSV"]


def test_files_of_a_folder_that_hold_no_rows(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    rows = ("a.json", "b.jsonl.gz", "c.parquet", "d.CSV")
    for name in (*rows, "._a.json", ".hidden.csv", "labels.json", "dataset_info.json", "e.parquet.gz", "f.xlsx"):
        (tmp_path / "clips" / name).touch()
    info = read_dataset_info("actions", register(tmp_path, file_name="clips"))
    assert [path.name for path in data_files(info, str(tmp_path))] == list(rows)


def test_where_the_rows_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "below").mkdir()
    (tmp_path / "a.json").touch()
    for name in ("~/a.json", f"file://{tmp_path}/a.json", str(tmp_path / "a.json"), "../a.json"):
        info = read_dataset_info("actions", register(tmp_path, file_name=name))
        assert [path.resolve() for path in data_files(info, str(tmp_path / "below"))] == [tmp_path / "a.json"]
    for name, message in (
        ("https://x.org/a.json", "file_name: 'https://x.org/a.json' is an address on the web: download"),
        ("sub\\\\a.json", r"file_name: 'sub.*a.json' is a path of Windows"),
    ):
        info = read_dataset_info("actions", register(tmp_path, file_name=name))
        with pytest.raises(AnnotationError, match=message):
            data_files(info, str(tmp_path))
    (tmp_path / "a.xlsx").touch()
    info = read_dataset_info("actions", register(tmp_path, file_name="a.xlsx"))
    with pytest.raises(AnnotationError, match=r"got a.xlsx: save the workbook as CSV UTF-8"):
        data_files(info, str(tmp_path))


def test_registries_that_are_none(tmp_path: Path) -> None:
    registry = tmp_path / "dataset_info.json"
    registry.write_text('{"actions":\n}')
    with pytest.raises(AnnotationError, match=r"dataset_info.json is not valid JSON: Expecting value: line 2 column 1"):
        read_dataset_info("actions", str(tmp_path))
    registry.write_text("[" * 100_000)
    with pytest.raises(AnnotationError, match=r"dataset_info.json is nested too deeply"):
        read_dataset_info("actions", str(tmp_path))
    registry.write_text('{"跑": {}}', encoding="gbk")
    with pytest.raises(
        AnnotationError, match=r"expected text in utf-8, got the byte 0xc5 in line 1: convert it to UTF-8"
    ):
        read_dataset_info("actions", str(tmp_path))
