import pytest
import torch

from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.models.vision.attention import IMPLEMENTATION, attend_in_slices


@pytest.fixture
def run_tower(base_model_dir, make_config, prepared_clips):
    """Features and gradients of the tower for clips of the given frame counts and heights."""

    def run(implementation, *shapes):
        config = make_config()
        model = load_base_model(base_model_dir, settings=config.model)
        tower = model.get_encoder(modality="video")
        assert tower.config._attn_implementation == IMPLEMENTATION
        tower.config._attn_implementation = implementation
        processor = Processor.from_pretrained(base_model_dir, video=config.video, special_tokens=("<ACTION>",))
        frames = [
            clip.media[0].frames[:num_frames, :height]
            for clip, (num_frames, height) in zip(prepared_clips, shapes, strict=False)
        ]
        inputs = processor.pixel_inputs(frames)
        output = torch.cat(model.base_model.get_video_features(**inputs).pooler_output)
        output.square().sum().backward()
        gradients = {name: value.grad for name, value in tower.named_parameters() if value.grad is not None}
        return output.detach(), gradients

    return run


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
@pytest.mark.parametrize("shapes", [[(4, 32), (4, 32)], [(4, 32), (2, 16), (4, 16), (2, 32)]])
def test_all_slices_at_once_give_what_one_by_one_gives(run_tower, shapes):
    together, together_gradients = run_tower(IMPLEMENTATION, *shapes)
    one_by_one, expected_gradients = run_tower("sdpa", *shapes)

    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=1e-5)
    assert together_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(together_gradients[name], gradient, atol=1e-5 * scale + 1e-7, rtol=1e-4)


def test_slices_do_not_see_each_other():
    query, key, value = torch.randn(3, 1, 2, 6, 4).unbind()
    bounds = torch.tensor([0, 2, 6])
    before, _ = attend_in_slices(None, query, key, value, None, cu_seq_lens_q=bounds, scaling=0.5)
    value[:, :, 2:] += 1
    after, _ = attend_in_slices(None, query, key, value, None, cu_seq_lens_q=bounds, scaling=0.5)

    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.isclose(before[:, 2:], after[:, 2:]).any()


def test_another_implementation_that_was_asked_for_stays(base_model_dir, make_config):
    model = load_base_model(base_model_dir, settings=make_config(flash_attn="disabled").model)

    assert model.get_encoder(modality="video").config._attn_implementation == "eager"
    assert model.get_decoder().config._attn_implementation == "eager"


def test_the_saved_configuration_does_not_name_it(base_model_dir, make_config, tmp_path):
    load_base_model(base_model_dir, settings=make_config().model).save_pretrained(tmp_path)

    assert IMPLEMENTATION not in (tmp_path / "config.json").read_text()
