import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ivcp.data.prepared.batches import PlannedBatches
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.decoder_stack import LabelledStates, train_stack


def data(seed, *, num_clips=60):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(num_clips, 8, generator=generator)
    return LabelledStates(states, (states[:, :3] * 2).argmax(dim=1))


def decoders_of(kind, number):
    shape = DecoderShape(
        decoder_type=kind, hidden_size=8, num_classes=3, decoder_hidden_size=None if kind == "linear" else 16
    )
    made = []
    for seed in range(number):
        torch.manual_seed(seed)
        made.append(ActionDecoder(shape))
    return made


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_each_decoder_trains_as_it_does_alone(kind):
    rates, decays, num_epochs = [1e-3, 1e-2, 1e-2], [0.0, 0.0, 0.3], 4
    train, val = data(0), data(1)
    batches = PlannedBatches(np.ones(60, dtype=np.int64), clips_per_batch=16)
    result = train_stack(
        decoders_of(kind, 3),
        learning_rates=rates,
        weight_decays=decays,
        train=train,
        val=val,
        batches=batches,
        num_epochs=num_epochs,
        loss=cross_entropy,
    )

    total = num_epochs * len(batches)
    for number, decoder in enumerate(decoders_of(kind, 3)):
        groups = [
            {"params": [p for p in decoder.parameters() if p.dim() > 1], "weight_decay": decays[number]},
            {"params": [p for p in decoder.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=rates[number])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total))
        )
        for epoch in range(num_epochs):
            last = []
            for batch in batches.plan(epoch):
                loss = cross_entropy(decoder(train.states[batch]), train.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                last.append(loss.item())
        for name, expected in decoder.state_dict().items():
            torch.testing.assert_close(result.decoder(number)[name], expected, atol=1e-5, rtol=1e-4)
        logits = decoder(val.states)
        assert result.train_losses[number] == pytest.approx(sum(last) / len(last), abs=1e-5)
        assert result.val_losses[number] == pytest.approx(cross_entropy(logits, val.labels).item(), abs=1e-5)
        assert result.val_top1_accuracies[number] == pytest.approx(
            (logits.argmax(dim=1) == val.labels).float().mean().item()
        )


def test_the_given_decoders_stay_as_they_are():
    decoders = decoders_of("linear", 2)
    before = [decoder.layers.weight.clone() for decoder in decoders]
    train_stack(
        decoders,
        learning_rates=[0.1, 0.1],
        weight_decays=[0.0, 0.0],
        train=data(0),
        val=data(1),
        batches=PlannedBatches(np.ones(60, dtype=np.int64), clips_per_batch=60),
        num_epochs=1,
        loss=cross_entropy,
    )
    assert all(torch.equal(decoder.layers.weight, old) for decoder, old in zip(decoders, before, strict=True))
