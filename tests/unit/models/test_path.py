import pytest

from ivcp.models.path import check_model_path, looks_local


@pytest.mark.parametrize("name", ["/models/a", "./a", "../a", "~/a", "a", "a/b/c"])
def test_what_can_be_no_hub_id(name):
    assert looks_local(name)
    with pytest.raises(FileNotFoundError, match="does not exist: give the path of a model directory or a hub id"):
        check_model_path(name)


def test_a_hub_id():
    assert not looks_local("Qwen/Qwen3-VL-4B-Instruct")
    check_model_path("Qwen/Qwen3-VL-4B-Instruct")


def test_folders_and_files_that_are_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_model_path(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is a file: give the folder with the model's config\.json"):
        check_model_path(tmp_path / "config.json")
    (tmp_path / "config.json").rename(tmp_path / "adapter_config.json")
    with pytest.raises(FileNotFoundError, match=r"has no config.json: .*it is an adapter: set adapter_name_or_path"):
        check_model_path(tmp_path)
