import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ivcp.models.base_files import BaseFilesError, check_base_files, check_weights, damage
from tests.tiny_families import FAMILIES, build_tiny_family

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 3676696\n"


@pytest.fixture
def model(base_model_dir, tmp_path):
    return shutil.copytree(base_model_dir, tmp_path / "model")


@pytest.fixture
def sharded(model):
    """The same model in two files of weights."""
    (model / "model.safetensors").unlink()
    names = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        save_file({name: torch.zeros(8)}, model / name)
    index = {"weight_map": {name: name for name in names}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return model


def refused(folder, *, with_weights=True):
    with pytest.raises(BaseFilesError) as caught:
        check_base_files(folder, with_weights=with_weights)
    assert str(folder.absolute()) in str(caught.value)
    return str(caught.value)


def test_a_whole_model_is_in_order(model, sharded):
    check_base_files(sharded, with_weights=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tested_family_is_in_order(tmp_path, family):
    check_base_files(build_tiny_family(tmp_path / family, family), with_weights=True)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_pointers_of_git_lfs(model, name):
    (model / name).write_text(POINTER)

    assert f"Git LFS pointers in the place of files: {name}; run `git lfs pull` there" in refused(model)


def test_a_truncated_file_of_weights(model):
    file = model / "model.safetensors"
    whole = file.stat().st_size
    with file.open("r+b") as weights:
        weights.truncate(100_000)

    assert f"model.safetensors has 100,000 of {whole:,} bytes: the download was cut off" in refused(model)
    check_base_files(model, with_weights=False)
    with pytest.raises(BaseFilesError, match="the download was cut off"):
        check_weights(model)


def test_shards(sharded):
    first, second = sorted(sharded.glob("*.safetensors"))
    with second.open("r+b") as weights:
        weights.truncate(second.stat().st_size - 1)
    assert f"{second.name} has" in refused(sharded)
    first.unlink()
    assert f"1 of 2 weight files are missing: {first.name}; {second.name} has" in refused(sharded)
    (sharded / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json has no weight_map" in refused(sharded)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 20, b"<html>not found</html>", b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!"]
)
def test_what_is_no_file_of_weights(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)

    assert damage(tmp_path / "model.safetensors") == (
        f"model.safetensors ({len(content)} bytes) is no safetensors file: download it again"
    )


def test_weights_of_torch(model):
    (model / "model.safetensors").unlink()
    assert "it has no weights: expected model.safetensors" in refused(model)
    torch.save({"weight": torch.zeros(100)}, model / "pytorch_model.bin")
    check_base_files(model, with_weights=True)
    with (model / "pytorch_model.bin").open("r+b") as weights:
        weights.truncate(200)
    assert "pytorch_model.bin (200 bytes) is cut off" in refused(model)


def test_tokenizer_processor_and_chat_template(model):
    (model / "chat_template.jinja").unlink()
    assert "it has no chat template: expected chat_template.jinja" in refused(model, with_weights=False)
    settings = json.loads((model / "tokenizer_config.json").read_text()) | {"chat_template": "{{ messages }}"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    check_base_files(model, with_weights=False)
    (model / "tokenizer.json").unlink()
    (model / "processor_config.json").unlink()
    said = refused(model, with_weights=False)
    assert "it has no tokenizer: expected one of tokenizer.json" in said
    assert "it has no processor for videos: expected one of processor_config.json" in said
    check_base_files(model, with_weights=False, has_own_code=True)


def test_json_that_was_cut_off(model):
    whole = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(whole[:1000])

    assert "tokenizer.json is no valid JSON: download it again" in refused(model)
