"""An adapter, its decoder and its row belong to the weights of one base model, and are used on no others."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ivcp.export.merge import merge_adapter
from ivcp.models.backbone_files import ModelFilesError
from ivcp.serving.predictor import Predictor
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.training.result import run_trainer
from tests.tiny_families import build_tiny_family

OTHER = r"was trained on the base model .*tiny \(weights [0-9a-f]{12}\), and .*other has other weights \([0-9a-f]{12}\)"


@pytest.fixture(scope="session")
def other_base(tmp_path_factory):
    """The same architecture with other weights."""
    return build_tiny_family(tmp_path_factory.mktemp("models") / "other", "qwen2_vl", seed=1)


@pytest.fixture
def trained(make_trainer, tmp_path):
    def run(**settings):
        run_trainer(make_trainer(max_steps=2, eval_strategy="no", **settings))
        return tmp_path / "adapter"

    return run


def name_base(directory, base):
    """Lets a directory name another base model, as when a folder is replaced by another download."""
    file = directory / "run_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"model_name_or_path": str(base)}))


KINDS = {
    "lora": {},
    "qlora": {"quantization_bit": 4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "decoder": {"finetuning_type": "freeze", "freeze_trainable_layers": 0},
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_evaluation_export_and_predictor_refuse_another_base(trained, other_base, prepared_clips, tmp_path, settings):
    adapter = trained(**settings)
    load_directory(adapter)
    name_base(adapter, other_base)

    with pytest.raises(ModelFilesError, match=OTHER):
        load_directory(adapter)
    with pytest.raises(ModelFilesError, match=OTHER):
        merge_adapter(
            adapter, tmp_path / "model", samples=prepared_clips[:2], machine=ModelConfig(), max_shard_gigabytes=1
        )
    assert not (tmp_path / "model").exists()
    with pytest.raises(ModelFilesError, match=OTHER):
        Predictor(str(adapter)).load()


def test_the_same_base_in_another_folder_and_in_several_files_is_the_same(
    trained, base_model_dir, prepared_clips, tmp_path
):
    adapter = trained()
    before = load_directory(adapter).outputs(prepared_clips[:2])
    moved = shutil.copytree(base_model_dir, tmp_path / "moved")
    weights = load_file(moved / "model.safetensors")
    (moved / "model.safetensors").unlink()
    places = {name: f"model-{1 + number % 2:05d}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in set(places.values()):
        part = {name: weights[name] for name, place in places.items() if place == file}
        save_file(part, moved / file, metadata={"format": "pt"})
    (moved / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    name_base(adapter, moved)

    assert torch.equal(load_directory(adapter).outputs(prepared_clips[:2]), before)


@pytest.mark.parametrize("settings", [{}, {"finetuning_type": "freeze", "freeze_trainable_layers": 1}])
def test_a_training_neither_starts_nor_resumes_on_another_base(trained, make_trainer, other_base, tmp_path, settings):
    adapter = trained(save_steps=1, **settings)
    elsewhere = {"output_dir": tmp_path / "second", "model_name_or_path": str(other_base)} | settings
    with pytest.raises(ModelFilesError, match=OTHER):
        make_trainer(adapter_name_or_path=str(adapter), **elsewhere)
    with pytest.raises(ModelFilesError, match=OTHER):
        run_trainer(make_trainer(**elsewhere), resume_from=str(adapter / "checkpoint-1"))


def test_full_weights_need_no_base(trained, other_base, prepared_clips):
    adapter = trained(finetuning_type="full")
    before = load_directory(adapter).outputs(prepared_clips[:2])
    name_base(adapter, other_base)

    assert torch.equal(load_directory(adapter).outputs(prepared_clips[:2]), before)


def test_a_merged_model_needs_no_base(trained, other_base, prepared_clips, tmp_path):
    merge_adapter(
        trained(), tmp_path / "model", samples=prepared_clips[:2], machine=ModelConfig(), max_shard_gigabytes=1
    )
    before = load_directory(tmp_path / "model").outputs(prepared_clips[:2])
    name_base(tmp_path / "model", other_base)

    assert torch.equal(load_directory(tmp_path / "model").outputs(prepared_clips[:2]), before)


def test_a_directory_of_an_earlier_version_loads_with_a_warning(trained, caplog):
    adapter = trained()
    file = adapter / "model_info.json"
    described = json.loads(file.read_text())
    assert described["format_version"] == 3
    del described["base"]
    file.write_text(json.dumps(described | {"format_version": 1}))

    with caplog.at_level(logging.WARNING):
        load_directory(adapter)
    assert "does not say on which weights it was trained (an earlier version wrote it)" in caplog.text


def test_a_decoder_that_starts_on_another_base_is_said(trained, make_trainer, other_base, tmp_path, caplog):
    """Training can make it fit: it is where that starts."""
    adapter = trained()
    for path in (adapter, adapter / "action_decoder.safetensors"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            make_trainer(
                output_dir=tmp_path / "second", model_name_or_path=str(other_base), action_decoder_path=str(path)
            )
        assert "action_decoder_path: " in caplog.text
        assert "the decoder starts from states that it does not know" in caplog.text
    caplog.clear()
    make_trainer(output_dir=tmp_path / "third", action_decoder_path=str(adapter))
    assert "action_decoder_path" not in caplog.text
