"""One base model has one fingerprint, however it is stored; another one of the same shape has another."""

import json
import os
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from ivcp.models.fingerprint import base_weights, weights_fingerprint
from ivcp.models.load import load_base_model
from ivcp.settings import ModelConfig
from tests.tiny_families import build_tiny_family


@pytest.fixture
def model(base_model_dir, tmp_path):
    return shutil.copytree(base_model_dir, tmp_path / "model")


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def change(folder, name, at):
    weights = weights_of(folder)
    weights[name].view(-1)[at] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def largest(folder):
    return max(weights_of(folder).items(), key=lambda item: item[1].numel())[0]


def test_the_folder_does_not_matter(base_model_dir, model):
    assert weights_fingerprint(model) == weights_fingerprint(base_model_dir)
    found = base_weights(ModelConfig(model_name_or_path=str(model)))
    assert found.name == str(model)
    assert found.fingerprint == weights_fingerprint(base_model_dir)


def test_another_model_of_the_same_shape_has_another(base_model_dir, tmp_path):
    other = build_tiny_family(tmp_path / "other", "qwen2_vl", seed=1)

    assert {n: v.shape for n, v in weights_of(other).items()} == {
        n: v.shape for n, v in weights_of(base_model_dir).items()
    }
    assert weights_fingerprint(other) != weights_fingerprint(base_model_dir)


@pytest.mark.parametrize("at", [0, -1])
def test_one_changed_tensor_is_seen(model, base_model_dir, at):
    change(model, largest(model), at)
    assert weights_fingerprint(model) != weights_fingerprint(base_model_dir)


def test_files_do_not_matter(model, base_model_dir):
    loaded = load_base_model(model, settings=ModelConfig())
    loaded.save_pretrained(model, max_shard_size="100KB")
    (model / "model.safetensors").unlink(missing_ok=True)

    assert len(list(model.glob("model-*.safetensors"))) > 1
    assert weights_fingerprint(model) == weights_fingerprint(base_model_dir)


@pytest.mark.parametrize("in_two", [False, True])
def test_pytorchs_own_files_are_the_same_model(model, base_model_dir, in_two):
    weights = weights_of(model)
    (model / "model.safetensors").unlink()
    if in_two:
        places = {name: f"pytorch_model-{number % 2}.bin" for number, name in enumerate(weights)}
        for file in set(places.values()):
            torch.save({name: weights[name] for name, place in places.items() if place == file}, model / file)
        (model / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    else:
        torch.save(weights, model / "pytorch_model.bin")

    assert weights_fingerprint(model) == weights_fingerprint(base_model_dir)


def test_a_precision_that_holds_the_values_exactly_is_the_same_model(model, tmp_path):
    half = shutil.copytree(model, tmp_path / "bfloat16")
    rounded = {name: value.bfloat16() for name, value in weights_of(model).items()}
    save_file(rounded, half / "model.safetensors")
    back = shutil.copytree(model, tmp_path / "float32")
    save_file({name: value.float() for name, value in rounded.items()}, back / "model.safetensors")

    assert weights_fingerprint(back) == weights_fingerprint(half)
    assert weights_fingerprint(half) != weights_fingerprint(model)  # rounded weights are others


def test_names_and_tied_weights_do_not_matter(model, base_model_dir):
    weights = {f"model.{name}": value for name, value in weights_of(model).items()}
    name = next(iter(weights))
    save_file(weights | {"lm_head.weight": weights[name].clone()}, model / "model.safetensors")

    assert weights_fingerprint(model) == weights_fingerprint(base_model_dir)


def test_quantized_weights_have_one_too(tmp_path):
    for number, folder in enumerate((tmp_path / "a", tmp_path / "b")):
        folder.mkdir()
        weights = {"w": torch.full((64, 64), number, dtype=torch.uint8), "w.absmax": torch.ones(64)}
        save_file(weights, folder / "model.safetensors")
    assert weights_fingerprint(tmp_path / "a") != weights_fingerprint(tmp_path / "b")


def test_a_model_that_was_replaced_is_looked_at_again(model):
    before = weights_fingerprint(model)
    change(model, largest(model), 0)
    os.utime(model / "model.safetensors", (time.time() + 10, time.time() + 10))
    assert weights_fingerprint(model) != before


def test_a_change_as_training_makes_it_is_seen(tmp_path):
    """A merged LoRA of rank 1 in bfloat16, small enough that most values are rounded back to what they were."""
    torch.manual_seed(0)
    weight = torch.randn(1024, 1024).bfloat16()
    delta = 1e-3 * torch.randn(1024, 1) @ torch.randn(1, 1024)
    merged = (weight.float() + delta).bfloat16()
    assert 0.01 < (merged != weight).float().mean() < 0.5
    for folder, value in ((tmp_path / "base", weight), (tmp_path / "merged", merged)):
        folder.mkdir()
        save_file({"w": value}, folder / "model.safetensors")
    assert weights_fingerprint(tmp_path / "base") != weights_fingerprint(tmp_path / "merged")
