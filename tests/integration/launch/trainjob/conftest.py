import pytest

from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.training.train import train_model
from tests.integration.launch.trainjob.training_step import Step
from tests.integration.training_data import training_settings


@pytest.fixture(scope="module")
def adapter(data):
    """What a job leaves."""
    config = config_from_settings(training_settings(data, data / "adapter", max_steps=1))
    train_model(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / "adapter")
    return data / "adapter"


@pytest.fixture
def step(data, tmp_path, kubernetes_api):
    step = Step(data, tmp_path, kubernetes_api)
    step.add_runtime()
    return step
