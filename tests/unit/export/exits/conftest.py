"""A hub on loopback that can be written, and a user's environment with a token for it."""

import pytest

from tests.hub_api.writable import TOKEN, writable_hub
from tests.models import save_tiny_classifier


@pytest.fixture
def hub(monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    # huggingface_hub reads this once, when it is imported: the hub here speaks Git LFS
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with writable_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("exported") / "model")
