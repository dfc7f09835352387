import importlib.util

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file

from ivcp.models.adapters import UnsupportedMethodError, lora_target
from ivcp.models.backbone_files import TRAINED_WEIGHTS
from ivcp.settings import ConfigError, MethodConfig
from ivcp.stages.directory import load_directory
from ivcp.training.parameter_groups import trained_part
from ivcp.training.parameter_table import parameter_table
from ivcp.training.result import run_trainer
from tests.samples import STAGE

FAMILIES = pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)

QLORA = {"quantization_bit": 4}


def trained_names(classifier):
    return [name for name, parameter in classifier.named_parameters() if parameter.requires_grad]


def trained_parts(classifier):
    return {trained_part(name, classifier, STAGE) for name in trained_names(classifier)}


def test_table_of_what_trains(make_trainer):
    rows = {row.name: row for row in parameter_table(make_trainer().model, STAGE)}

    assert rows["lora"].trainable == rows["lora"].total > 0
    assert rows["action_token_row"].trainable == rows["action_token_row"].total
    assert rows["language_model"].trainable == rows["vision_tower"].trainable == rows["projector"].trainable == 0
    assert rows["vision_tower"].total > 0
    assert rows["projector"].total > 0


def test_lora_stays_in_the_language_model(make_trainer):
    names = [name for name, _ in make_trainer(lora_target="q_proj,v_proj").model.named_parameters() if "lora_" in name]

    assert names
    assert all("language_model" in name and ("q_proj" in name or "v_proj" in name) for name in names)


def test_lora_targets(make_trainer):
    model = make_trainer(finetuning_type="full").model.backbone

    pattern = r"model\.language_model\..*mlp.*"
    assert lora_target(model, MethodConfig(lora_target=pattern)) == pattern
    with pytest.raises(UnsupportedMethodError, match=r"lora_target names qqq, the language_model has .*down_proj"):
        lora_target(model, MethodConfig(lora_target="q_proj,qqq"))


@FAMILIES
def test_lora_reaches_the_tower_and_the_projector_where_they_are_not_frozen(make_trainer):
    model = make_trainer(freeze_vision_tower=False, freeze_multi_modal_projector=False).model

    assert trained_parts(model) == {
        "language_model", "vision_tower", "projector", "action_decoder", "action_token_row"
    }  # fmt: skip
    assert trained_parts(make_trainer(freeze_vision_tower=False).model).isdisjoint({"projector"})


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True}, {"lora_target": "q_proj"}])
def test_variants_of_lora_train_and_load(make_trainer, tmp_path, prepared_clips, settings):
    trainer = make_trainer(max_steps=2, **settings)
    run_trainer(trainer)
    seen = torch.from_numpy(trainer.predict(prepared_clips[12:]).predictions)

    torch.testing.assert_close(
        load_directory(tmp_path / "adapter").outputs(prepared_clips[12:]), seen, atol=1e-5, rtol=0
    )


@FAMILIES
@pytest.mark.parametrize(("count", "trained"), [(1, {1}), (2, {0, 1}), (-1, {0}), (0, set())])
def test_freeze_trains_the_chosen_layers_alone(make_trainer, count, trained):
    model = make_trainer(finetuning_type="freeze", freeze_trainable_layers=count).model
    names = [name for name in trained_names(model) if name.startswith("backbone.")]

    assert {int(name.split("layers.")[1].split(".")[0]) for name in names} == trained
    assert all("language_model.layers." in name for name in names)
    assert {"action_decoder", "action_token_row"} <= trained_parts(model)


def test_freeze_writes_only_what_it_trained(make_trainer, tmp_path):
    run_trainer(make_trainer(finetuning_type="freeze", freeze_trainable_layers=0, max_steps=1))

    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    assert load_file(tmp_path / "adapter" / TRAINED_WEIGHTS) == {}


def test_more_layers_than_there_are_is_an_error(make_trainer):
    with pytest.raises(UnsupportedMethodError, match="freeze_trainable_layers = 9: the language model has 2 layers"):
        make_trainer(finetuning_type="freeze", freeze_trainable_layers=9)


@FAMILIES
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_every_part_learns_at_its_own_rate(make_trainer, finetuning_type):
    trainer = make_trainer(
        finetuning_type=finetuning_type,
        freeze_vision_tower=False,
        freeze_multi_modal_projector=False,
        learning_rate=1e-3,
        vision_tower_learning_rate=1e-4,
        projector_learning_rate=2e-4,
        action_decoder_learning_rate=1e-2,
        action_token_lr_scale=0.5,
        weight_decay=0.1,
    )
    groups = trainer.create_optimizer().param_groups
    of = {id(parameter): group for group in groups for parameter in group["params"]}

    expected = {
        "language_model": 1e-3,
        "projector": 2e-4,
        "vision_tower": 1e-4,
        "action_decoder": 1e-2,
        "action_token_row": 5e-4,
    }
    parameters = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert {id(parameter) for parameter in parameters.values()} == set(of)
    for name, parameter in parameters.items():
        assert of[id(parameter)]["lr"] == pytest.approx(expected[trained_part(name, trainer.model, trainer.stage)]), (
            name
        )
    assert [group["weight_decay"] for group in groups if group["name"] == "action_token_row"] == [0.0]
    assert {group["weight_decay"] for group in groups if group["name"] == "language_model"} == (
        {0.1} if finetuning_type == "lora" else {0.0, 0.1}
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_lora_on_quantized_weights_trains_and_loads(make_trainer, prepared_clips, tmp_path, bits, caplog):
    trainer = make_trainer(quantization_bit=bits, max_steps=3)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    run_trainer(trainer)

    layers = {type(module).__name__ for name, module in trainer.model.named_modules() if name.endswith("base_layer")}
    assert layers == {"Linear4bit" if bits == 4 else "Linear8bitLt"}
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert any("lora_" in name for name in moved)
    assert not any("base_layer" in name or "visual" in name for name in moved)
    seen = torch.from_numpy(trainer.predict(prepared_clips[12:]).predictions)
    loaded = load_directory(tmp_path / "adapter")
    torch.testing.assert_close(loaded.outputs(prepared_clips[12:]), seen, atol=1e-3, rtol=0)
    exact = load_directory(tmp_path / "adapter", quantize=False).outputs(prepared_clips[12:])
    assert (exact - seen).abs().max() > 1e-3


def test_4_bit_layers_train_and_answer_alike_on_every_processor(make_trainer, prepared_clips, tmp_path, monkeypatch):
    """With AVX512-BF16, bitsandbytes repacks weights in evaluation for a kernel without gradients."""
    trained, answers = [], []
    for has_kernel in (False, True):
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda has_kernel=has_kernel: has_kernel)
        trainer = make_trainer(
            **QLORA, max_steps=4, eval_strategy="steps", eval_steps=1, output_dir=str(tmp_path / str(has_kernel))
        )
        assert has_kernel == bitsandbytes.nn.Linear4bit(8, 8).support_avx512bf16_for_cpu
        run_trainer(trainer)
        trained.append({name: value for name, value in trainer.model.named_parameters() if value.requires_grad})
        answers.append(load_directory(tmp_path / str(has_kernel)).outputs(prepared_clips[12:]))
        assert len([row for row in trainer.state.log_history if "eval_loss" in row]) >= 4
    torch.testing.assert_close(trained[1], trained[0], atol=0, rtol=0)
    torch.testing.assert_close(answers[1], answers[0], atol=0, rtol=0)


def test_the_table_counts_weights_not_packed_bytes(make_trainer):
    rows = [{row.name: row.total for row in parameter_table(make_trainer(**s).model, STAGE)} for s in ({}, QLORA)]

    assert rows[0] == rows[1]


def test_quantizing_without_bitsandbytes_is_a_clear_error(make_trainer, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package bitsandbytes: pip install bitsandbytes"):
        make_trainer(**QLORA)
