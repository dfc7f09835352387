import json

import pytest

from ivcp.export.exits.public import hub_id, public_files, public_name
from ivcp.stages.directory import load_directory


@pytest.mark.parametrize(
    ("name", "found", "shown"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"),
        ("/home/ann/.cache/hub/models--Qwen--Qwen2-VL-2B/snapshots/abc", "Qwen/Qwen2-VL-2B", "Qwen/Qwen2-VL-2B"),
        ("/home/ann/secret project/Qwen2-VL", None, "Qwen2-VL"),
        ("s3://private-bucket/bases/qwen", None, "qwen"),
        ("models:/base@champion", None, "base@champion"),
        ("../bases/tiny", None, "tiny"),
    ],
)
def test_a_base_model_is_named_without_its_place(name, found, shown):
    assert (hub_id(name), public_name(name)) == (found, shown)


def test_a_folder_that_looks_like_an_id_is_none(tmp_path, monkeypatch):
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (hub_id("models/tiny"), public_name("models/tiny")) == (None, "tiny")


def test_no_file_that_others_read_names_a_local_path(model_dir):
    (model_dir / "export_result.json").write_text(json.dumps({"model_dir": str(model_dir)}))
    (model_dir / ".owner").write_text("this machine")
    with public_files(model_dir) as folder:
        names = {path.name for path in folder.iterdir()}
        for path in folder.iterdir():
            assert str(model_dir.parent).encode() not in path.read_bytes(), path.name
        assert json.loads((folder / "run_config.json").read_text())["model_name_or_path"] == "model"
        assert load_directory(folder).labels == load_directory(model_dir).labels
    assert not names & {"export_result.json", ".owner", "seen_clips.arrow"}
    assert {"config.json", "model.safetensors", "action_decoder.safetensors", "labels.json"} <= names
    assert str(model_dir) in (model_dir / "run_config.json").read_text()  # at home it stays


def test_the_folder_goes_with_the_block(model_dir):
    with public_files(model_dir) as folder:
        pass
    assert not folder.exists()
    assert (model_dir / "model.safetensors").is_file()
