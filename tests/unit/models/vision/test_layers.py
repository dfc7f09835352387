import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers.activations import QuickGELUActivation

from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.models.vision.layers import PatchConv3d, QuickGELU, replace_slow_layers


def with_gradients(layer, values):
    inputs = values.clone().requires_grad_()
    output = layer(inputs)
    output.square().sum().backward()
    return output.detach(), inputs.grad


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"], indirect=True)
def test_a_tower_gives_the_features_of_transformers_own(base_model_dir, make_config, prepared_clips):
    config = make_config()
    processor = Processor.from_pretrained(base_model_dir, video=config.video, special_tokens=("<ACTION>",))
    inputs = processor.pixel_inputs([clip.media[0].frames for clip in prepared_clips[:2]])
    faster = load_base_model(base_model_dir, settings=config.model)
    original = AutoModelForImageTextToText.from_pretrained(base_model_dir).eval()

    assert any(isinstance(layer, PatchConv3d) for layer in faster.modules())
    assert faster.state_dict().keys() == original.state_dict().keys()
    with torch.no_grad():
        features, expected = (
            torch.cat(model.base_model.get_video_features(**inputs).pooler_output) for model in (faster, original)
        )
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(2, 4, 4), (4, 8, 8)], ids=["one patch", "several patches"])
def test_patches_are_embedded_as_a_convolution_does(size):
    tower = nn.Sequential(nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4)))
    values = torch.randn(5, 3, *size)
    expected, expected_gradient = with_gradients(tower, values)
    weight_gradient = tower[0].weight.grad
    tower.zero_grad()
    replace_slow_layers(tower)
    output, gradient = with_gradients(tower, values)

    assert isinstance(tower[0], PatchConv3d)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(tower[0].weight.grad, weight_gradient, rtol=1e-5, atol=1e-4)


def test_quick_gelu_is_that_of_transformers():
    values = torch.linspace(-30, 30, 101, dtype=torch.float64)
    tower = nn.Sequential(QuickGELUActivation())
    expected, expected_gradient = with_gradients(tower, values)
    replace_slow_layers(tower)
    output, gradient = with_gradients(tower, values)

    assert isinstance(tower[0], QuickGELU)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradient, expected_gradient)
