import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from ivcp.data.seen_clips import SEEN_CLIPS_FILE, ClipIdentities, SeenClips
from ivcp.export import merge
from ivcp.export.merge import MergeError, merge_adapter
from ivcp.inference.finite import NonFiniteError
from ivcp.records.calibration import CALIBRATION_FILE
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from tests.calibrations import CALIBRATION


@pytest.fixture
def make_adapter(make_config, make_index, prepared_clips, tmp_path):
    def make(**settings):
        config = make_config(save_strategy="no", learning_rate=2e-2, **settings)
        clips = {"train": prepared_clips[:12], "val": prepared_clips[12:]}
        run_trainer(build_trainer(config, index=make_index(), samples=clips, output_dir=tmp_path / "adapter"))
        return tmp_path / "adapter"

    return make


def merged_into(adapter, target, samples, *, gigabytes=1.0):
    return merge_adapter(adapter, target, samples=samples, machine=ModelConfig(), max_shard_gigabytes=gigabytes)


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "lora_dropout": 0.1},
        {"finetuning_type": "full", "freeze_vision_tower": False},
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
        {"action_decoder_type": "transformer", "quantization_bit": 4},
    ],
)
def test_merged_equals_base_and_adapter(make_adapter, prepared_clips, tmp_path, settings):
    adapter = make_adapter(**settings)
    before = load_directory(adapter, quantize=False).outputs(prepared_clips)
    check = merge_adapter(
        adapter, tmp_path / "model", machine=ModelConfig(), samples=prepared_clips, max_shard_gigabytes=1
    )

    assert check.max_logit_difference <= 1e-4
    after = load_directory(tmp_path / "model").outputs(prepared_clips)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_a_model_trained_in_bfloat16_is_written_in_it(make_adapter, prepared_clips, tmp_path):
    check = merge_adapter(
        make_adapter(bf16=True),
        tmp_path / "model",
        machine=ModelConfig(),
        samples=prepared_clips[:6],
        max_shard_gigabytes=1,
    )

    assert check.dtype == "bfloat16"
    assert check.max_logit_difference < 0.5
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert load_directory(tmp_path / "model").outputs(prepared_clips[:6]).dtype == torch.float32


@pytest.mark.parametrize("settings", [{"bf16": True}, {"quantization_bit": 4}])
def test_what_rounding_changes_is_measured_as_it_is_served(make_adapter, prepared_clips, tmp_path, settings):
    adapter = make_adapter(**settings)
    check = merged_into(adapter, tmp_path / "model", prepared_clips)
    evaluated = load_directory(adapter).outputs(prepared_clips)
    served = load_directory(tmp_path / "model").outputs(prepared_clips)
    assert check.served_difference == pytest.approx((served - evaluated).abs().max().item(), rel=1e-3)
    assert 0 < check.served_difference < 0.5
    assert check.served_changes == (served.argmax(dim=1) != evaluated.argmax(dim=1)).sum()
    assert check.words.endswith(f"as it is served, {check.served_changes} of {len(prepared_clips)} classes changed")


def test_transformers_reads_the_model_and_knows_the_token(make_adapter, prepared_clips, tmp_path):
    adapter = make_adapter()
    merged_into(adapter, tmp_path / "model", prepared_clips)

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "model").tokenizer
    token_id = tokenizer.convert_tokens_to_ids("<ACTION>")
    row = model.get_input_embeddings().weight[token_id]
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    torch.testing.assert_close(row, load_directory(adapter).module.action_token_row, atol=0, rtol=0)


def test_large_models_are_written_in_several_files(make_adapter, prepared_clips, tmp_path):
    merge_adapter(
        make_adapter(), tmp_path / "model", machine=ModelConfig(), samples=prepared_clips[:2], max_shard_gigabytes=0.001
    )

    assert len(list((tmp_path / "model").glob("model-*-of-*.safetensors"))) > 1
    assert load_directory(tmp_path / "model").outputs(prepared_clips[:2]).shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected at most 0.0001: do not serve it"),
        ({"bf16": True}, "smaller than what bfloat16 keeps .*bf16: false"),
    ],
)
def test_a_merge_that_changes_the_answers_is_refused(
    make_adapter, prepared_clips, tmp_path, monkeypatch, settings, message
):
    adapter = make_adapter(**settings)

    def forget_the_row(loaded):
        with torch.no_grad():
            loaded.module.action_token_row.add_(10.0)
        return right(loaded)

    right = merge.merge_backbone
    monkeypatch.setattr(merge, "merge_backbone", forget_the_row)
    with pytest.raises(MergeError, match=message):
        merged_into(adapter, tmp_path / "model", prepared_clips)


def spoil(adapter, name):
    file = adapter / name
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({key: value * math.nan for key, value in load_file(file).items()}, file, metadata=metadata)


@pytest.mark.parametrize("settings", [{}, {"bf16": True}])
@pytest.mark.parametrize("name", ["action_decoder.safetensors", "adapter_model.safetensors"])
def test_an_adapter_that_diverged_is_not_exported(make_adapter, prepared_clips, tmp_path, settings, name):
    """In bfloat16 only the best class was compared, and of NaN that is class 0 on both sides."""
    adapter = make_adapter(**settings)
    spoil(adapter, name)
    with pytest.raises(NonFiniteError, match="adapter: the outputs of 6 of 6 clips are not finite"):
        merged_into(adapter, tmp_path / "model", prepared_clips[:6])
    with pytest.raises(NonFiniteError, match=r"adapter: \d+ weights are not finite .* nothing is exported"):
        merged_into(adapter, tmp_path / "model", ())
    assert not list(tmp_path.glob("model/*"))


def test_a_merge_that_gives_nan_is_refused_in_bfloat16_too(make_adapter, prepared_clips, tmp_path):
    adapter = make_adapter(bf16=True)
    merged_into(adapter, tmp_path / "model", prepared_clips[:6])
    spoil(tmp_path / "model", "action_decoder.safetensors")
    with pytest.raises(NonFiniteError, match="model: the outputs of 6 of 6 clips are not finite"):
        merge.check_merged(
            tmp_path / "model",
            samples=prepared_clips[:6],
            machine=ModelConfig(),
            expected=torch.zeros(6, 3),
            dtype=torch.bfloat16,
        )


def test_the_merged_model_remembers_what_the_adapter_has_seen(make_adapter, prepared_clips, tmp_path):
    adapter = make_adapter(max_steps=1)
    SeenClips(ClipIdentities.of([("1" * 64, "person 1")])).write(adapter / SEEN_CLIPS_FILE)
    merged_into(adapter, tmp_path / "model", prepared_clips[:2])

    seen = load_directory(tmp_path / "model").seen
    assert seen.is_complete
    asked = ClipIdentities.of([("1" * 64, None), (None, "person 1"), (None, "person 2")])
    assert asked.among(seen.trained).tolist() == [True, True, False]


def test_the_merged_model_has_the_adapters_calibration_and_no_other(make_adapter, tmp_path):
    adapter = make_adapter()
    CALIBRATION.write(adapter / CALIBRATION_FILE)
    merged_into(adapter, tmp_path / "model", ())
    assert load_directory(tmp_path / "model").calibration == CALIBRATION
    (adapter / CALIBRATION_FILE).unlink()
    merged_into(adapter, tmp_path / "model", ())
    assert load_directory(tmp_path / "model").calibration is None
