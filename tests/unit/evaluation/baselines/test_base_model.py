from pathlib import Path

import pytest
import torch

from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.baselines.base_model import base_model_of, without_tokens
from ivcp.evaluation.baselines.zero_shot import tokenize
from ivcp.models.backbone import last_hidden_states
from ivcp.models.load import load_base_model
from ivcp.records import Message
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from tests.models import save_tiny_adapter, save_tiny_classifier


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    return save_tiny_adapter(folder / "adapter", base=folder / "base")


def _states(backbone, model: LoadedModel, tiny) -> torch.Tensor:
    """Of clips that are asked about without the action token, whose row is the classifier's."""
    asked = AskedSamples(tiny.samples, tokenize, model.processor, without_tokens(model.prompt, ["<ACTION>"]))
    with torch.no_grad():
        return last_hidden_states(backbone, **model.processor.batch([asked[0], asked[1]], prompts_only=True))


def test_with_an_adapter_it_is_the_model_without_it(adapter: Path, tiny):
    model = load_directory(adapter)
    base = load_base_model(adapter.parent / "base", settings=ModelConfig())
    expected, trained = _states(base, model, tiny), _states(model.module.backbone, model, tiny)
    assert (trained - expected).abs().max() > 1e-2
    with base_model_of(model) as found:
        assert found is model.module.backbone
        torch.testing.assert_close(_states(found, model, tiny), expected)
    torch.testing.assert_close(_states(model.module.backbone, model, tiny), trained)


def test_of_other_weights_it_is_loaded_beside_them(tmp_path: Path, tiny):
    directory = save_tiny_classifier(tmp_path / "model")
    model = load_directory(directory)
    with torch.no_grad():
        for parameter in model.module.backbone.parameters():
            parameter.add_(0.01)
    with base_model_of(model) as found:
        assert found is not model.module.backbone
        base = load_base_model(directory, settings=ModelConfig())
        torch.testing.assert_close(_states(found, model, tiny), _states(base, model, tiny))


def test_one_that_is_gone_is_an_error(tmp_path: Path):
    model = load_directory(save_tiny_classifier(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError), base_model_of(model):
        pass
    assert next(model.module.parameters()).device.type == "cpu"


def test_the_base_model_is_not_shown_the_stages_token():
    asked = (Message(role="system", content="Watch."), Message(role="user", content="<video>What is it?<ACTION>"))
    assert without_tokens(asked, ["<ACTION>"]) == (asked[0], Message(role="user", content="<video>What is it?"))
