import numpy as np
import pytest
import torch

from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.baselines import zero_shot
from ivcp.evaluation.baselines.linear_probe import SHOTS, States, best_layer, draws, encode, layers_of, predict
from ivcp.inference.compute import Compute
from ivcp.records import Message
from tests.unit.evaluation.baselines.tiny import Tiny

QUESTION = (Message(role="user", content="<video>What is the person doing?"),)


def _encoded(tiny: Tiny, layers: list[int], *, batch_size: int = 3) -> np.ndarray:
    return encode(
        tiny.base,
        tiny.processor,
        AskedSamples(tiny.samples, zero_shot.tokenize, tiny.processor, QUESTION),
        layers=layers,
        batch_size=batch_size,
        compute=Compute(torch.device("cpu")),
        num_workers=0,
    )


def test_embeddings_are_the_models_own_states(tiny: Tiny):
    """Of transformers, one clip at a time, without padding; clips have different numbers of frames."""
    found = _encoded(tiny, [1, 2])
    hidden = tiny.base.config.get_text_config().hidden_size
    assert found.shape == (2, len(tiny.samples), 2 * hidden)
    asked = AskedSamples(tiny.samples, zero_shot.tokenize, tiny.processor, QUESTION)
    for number in range(len(tiny.samples)):
        batch = tiny.processor.batch([asked[number]], prompts_only=True)
        with torch.no_grad():
            states = tiny.base.model(**batch, use_cache=False, output_hidden_states=True).hidden_states
        for place, layer in enumerate((1, -1)):
            of_layer = states[layer][0]
            expected = torch.cat([of_layer[-1], of_layer.mean(dim=0)]).numpy()
            np.testing.assert_allclose(found[place, number], expected, atol=1e-5)


def test_layers_count_from_both_ends(tiny: Tiny):
    count = tiny.base.config.get_text_config().num_hidden_layers
    assert layers_of(tiny.base, [1, -1]) == (1, count)
    assert layers_of(tiny.base, [])[-1] == count
    with pytest.raises(ValueError, match=f"probe_layers: -9: the base model has {count} layers"):
        layers_of(tiny.base, [1, -9])


def test_it_learns_what_is_linear():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    states = random.normal(size=(300, 8)).astype(np.float32)
    states[:, 2] += 4 * labels
    assert np.mean(predict(states[:200], labels[:200], states[200:]) == labels[200:]) > 0.9
    assert set(predict(states[:3], np.array([1, 1, 1]), states[:5])) == {1}


def test_draws_are_of_every_class_and_always_the_same():
    labels = np.repeat([0, 1, 4], [50, 20, 3])
    first, again = list(draws(labels)), list(draws(labels))
    assert len(first) == 10
    for rows, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(rows, same)
        assert [int(np.sum(labels[rows] == label)) for label in (0, 1, 4)] == [SHOTS, SHOTS, 3]
        assert len(set(rows)) == len(rows)
    assert len({tuple(rows) for rows in first}) > 1


def test_the_layer_that_tells_most_is_chosen_by_clips_of_other_groups():
    """The first layer knows the group by heart, the second one the class, if less surely."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    labels = np.repeat(random.integers(0, 2, 40), 5)
    by_heart = np.eye(40, dtype=np.float32)[groups] * 10
    knows = random.normal(size=(200, 40)).astype(np.float32)
    knows[:, 0] += 2 * labels
    assert np.mean(predict(by_heart, labels, by_heart) == labels) == 1
    assert best_layer(States(np.stack([by_heart, knows]), labels, groups)) == 1
    assert best_layer(States(np.stack([knows, by_heart]), labels, groups)) == 0
