import json

import numpy as np
import pytest
import torch

from ivcp.demo.tiny_architectures import IMAGE_SIZE, NUM_FRAMES
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.demo.warm_up import WarmUpSettings
from ivcp.torchvision_compat import register_missing_operators

QUESTION = "What is the person doing?"
FEW_STEPS = WarmUpSettings(num_clips=8, num_epochs=3, batch_size=4)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def inputs_for_one_clip(processor):
    from transformers.video_utils import VideoMetadata

    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    frames = np.random.default_rng(0).integers(255, size=(NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return processor(
        text=[processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)],
        videos=[frames],
        video_metadata=[VideoMetadata(total_num_frames=30, fps=15.0, frames_indices=[*range(0, 30, 4)])],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_transformers_reads_the_directory(tmp_path, architecture):
    register_missing_operators()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    directory = build_tiny_model(tmp_path / "model", architecture=architecture, warm_up=False)
    model = AutoModelForImageTextToText.from_pretrained(directory)
    processor = AutoProcessor.from_pretrained(directory)
    assert model.config.model_type == architecture
    assert model.num_parameters() < 1_500_000
    inputs = inputs_for_one_clip(processor)
    assert int((inputs["input_ids"] == model.config.video_token_id).sum()) == 36
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    assert states.shape == (1, inputs["input_ids"].shape[1], model.config.get_text_config().hidden_size)
    assert torch.isfinite(states).all()


def test_the_tokenizer_speaks_qwens_template_and_does_not_know_the_action_token(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(build_tiny_model(tmp_path / "model", warm_up=False))
    assert "<ACTION>" not in tokenizer.get_vocab()
    assert len(tokenizer("<|video_pad|>")["input_ids"]) == 1
    text = "描述视频中的动作。 Describe it!\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert rendered.startswith("<|im_start|>system\n")


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_seed_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    directories = [build_tiny_model(tmp_path / name, seed=1, settings=FEW_STEPS, workers=1) for name in ("one", "two")]
    assert torch.rand(1) == expected
    weights = [(directory / "model.safetensors").read_bytes() for directory in directories]
    assert weights[0] == weights[1]


def test_a_model_is_reused_until_its_parameters_change(tmp_path):
    directory = build_tiny_model(tmp_path / "model", settings=FEW_STEPS, workers=1)
    warmed_up = (directory / "model.safetensors").stat().st_mtime_ns
    build_tiny_model(directory, settings=FEW_STEPS, workers=1)
    assert (directory / "model.safetensors").stat().st_mtime_ns == warmed_up
    build_tiny_model(directory, warm_up=False)
    assert (directory / "model.safetensors").stat().st_mtime_ns != warmed_up
    assert json.loads((directory / "tiny_model.json").read_text())["warm_up"] is False


def test_the_warm_up_trains_every_part_of_either_architecture(tmp_path):
    register_missing_operators()
    from transformers import AutoModelForImageTextToText

    for architecture in ("qwen2_vl", "qwen3_vl"):
        before, after = (
            AutoModelForImageTextToText.from_pretrained(
                build_tiny_model(
                    tmp_path / f"{architecture}-{warm_up}",
                    architecture=architecture,
                    warm_up=warm_up,
                    settings=FEW_STEPS,
                    workers=1,
                )
            )
            for warm_up in (False, True)
        )
        trained = dict(after.named_parameters())
        still = [name for name, weight in before.named_parameters() if torch.equal(weight, trained[name])]
        assert still == []
