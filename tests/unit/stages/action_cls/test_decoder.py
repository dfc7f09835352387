import pytest
import torch

from ivcp.settings import ActionClsConfig
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape

TYPES = ["linear", "mlp", "transformer", "transformer_no_vision"]


def build(decoder_type, *, num_classes=5, dropout=0.0, **settings) -> ActionDecoder:
    torch.manual_seed(0)
    method = ActionClsConfig(action_decoder_type=decoder_type, action_decoder_num_heads=2, **settings)
    return ActionDecoder(DecoderShape.from_settings(method, hidden_size=8, num_classes=num_classes), dropout=dropout)


def inputs(batch=3, tokens=6):
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(batch, 8, generator=generator)
    vision = torch.randn(batch, tokens, 8, generator=generator)
    mask = torch.arange(tokens) < torch.arange(1, batch + 1).unsqueeze(1)
    return states, vision, mask


@pytest.mark.parametrize("decoder_type", TYPES)
def test_logits_of_every_class_in_the_decoders_precision(decoder_type):
    states, vision, mask = inputs()

    assert build(decoder_type)(states.bfloat16(), vision.bfloat16(), mask).shape == (3, 5)


def test_the_transformer_looks_at_the_clips_own_vision_tokens_alone():
    """Clips of different length share a batch: what pads the shorter one must not reach it."""
    decoder = build("transformer").eval()
    states, vision, mask = inputs()
    together = decoder(states, vision, mask)
    alone = torch.cat(
        [decoder(states[i : i + 1], vision[i : i + 1, : i + 1], mask[i : i + 1, : i + 1]) for i in range(3)]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)

    elsewhere = torch.where(mask.unsqueeze(-1), vision, vision + 100)
    torch.testing.assert_close(decoder(states, elsewhere, mask), together, atol=1e-5, rtol=0)
    assert (decoder(states, vision + 1, mask) - together).abs().max() > 1e-3


def test_without_vision_only_the_token_counts():
    decoder = build("transformer_no_vision").eval()
    states, vision, mask = inputs()

    assert not decoder.reads_vision_states
    torch.testing.assert_close(decoder(states), decoder(states, vision, mask))


@pytest.mark.parametrize("decoder_type", TYPES[1:])
def test_dropout_is_off_in_evaluation(decoder_type):
    decoder = build(decoder_type, dropout=0.5)
    states, vision, mask = inputs()

    assert not torch.equal(decoder(states, vision, mask), decoder(states, vision, mask))
    decoder.eval()
    assert torch.equal(decoder(states, vision, mask), decoder(states, vision, mask))


def test_width_layers_and_heads_are_set():
    decoder = build("transformer", action_decoder_hidden_size=12, action_decoder_num_transformer_layers=3)

    assert decoder.layers.project.out_features == 12
    assert len(decoder.layers.encoder.layers) == 3
    with pytest.raises(ValueError, match="action_decoder_num_heads = 2 does not divide the decoder's width 9"):
        build("transformer", action_decoder_hidden_size=9)
