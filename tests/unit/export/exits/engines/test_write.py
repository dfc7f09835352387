"""Directories of tiny models with random weights, read by transformers alone in a fresh process."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ivcp.export.exits.engines import parity
from ivcp.export.exits.engines.parity import EngineError
from ivcp.export.exits.engines.vllm_plugin import read_bytes
from ivcp.export.exits.engines.write import add_engines, remove_engines
from ivcp.records import Message
from ivcp.serving.predictor import Predictor
from ivcp.settings import ConfigError, ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.video.clips import load_clip
from tests.data_sets import make_clip
from tests.exported import LABELS, save_exported

from transformers.video_utils import VideoMetadata  # isort: skip  # behind ivcp, which mends torchvision

BOTH = ("transformers", "vllm")
ASK = """
import json, sys
from ivcp.torchvision_compat import register_missing_operators
register_missing_operators()
sys.modules.update({name: None for name in sys.modules if name.partition(".")[0] == "ivcp"})  # as if not installed
from transformers import pipeline
asked = pipeline("video-classification", model=sys.argv[1], trust_remote_code=True, device="cpu")
print(json.dumps(asked(sys.argv[2], top_k=3)))
"""


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen2_vl", {}),
        ("qwen3_vl", {"max_shard_size": "1MB"}),
        ("qwen2_5_vl", {"action_decoder_type": "mlp"}),
        ("qwen2_vl", {"action_decoder_type": "transformer"}),
        ("qwen2_vl", {"action_decoder_type": "transformer_no_vision"}),
    ],
)
def test_transformers_alone_gives_the_same_logits(tmp_path, family, settings):
    directory = save_exported(tmp_path / "model", family, **settings)
    expected = load_directory(directory).module.decoder.state_dict()
    engines = BOTH if (family, settings) == ("qwen2_vl", {}) else ("transformers",)

    assert add_engines(directory, engines, machine=ModelConfig()) <= 1e-4
    after = load_directory(directory)  # which reads the directory as before
    assert all(after.module.decoder.state_dict()[name].equal(value) for name, value in expected.items())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    directory = save_exported(tmp_path_factory.mktemp("served") / "model")
    add_engines(directory, BOTH, machine=ModelConfig())
    return directory


def test_its_pipeline_answers_as_the_predictor_without_ivcp(served, tmp_path):
    video = make_clip(tmp_path / "clip.mp4", seed=3)
    predictor = Predictor(served)
    predictor.load()
    logits = torch.tensor(predictor.predict(video).logits)
    ended = subprocess.run(
        [sys.executable, "-c", ASK, str(served), str(video)],
        env={"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(ended.stdout.splitlines()[-1])
    scores = {answer["label"]: answer["score"] for answer in answers}
    assert [scores[name] for name in LABELS.label_names] == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)


def test_vllm_finds_the_head_and_no_other_file(served):
    index = json.loads((served / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == {"model.safetensors", "classification_head.safetensors"}
    in_head = {name for name, file in index.items() if file == "classification_head.safetensors"}
    assert in_head == {"score.weight", "score.bias"}
    for name, file in index.items():
        with safe_open(served / file, framework="pt") as opened:
            assert name in opened.keys()  # noqa: SIM118
    decoder = load_directory(served).module.decoder.layers
    assert load_file(served / "classification_head.safetensors")["score.weight"].equal(decoder.weight)


def test_the_configuration_says_labels_and_frame_sizes(served):
    config = json.loads((served / "config.json").read_text())
    assert config["id2label"] == {"0": "sit_down", "1": "stand_up", "2": "wave"}
    assert (config["num_labels"], config["label2id"]["wave"]) == (3, 2)
    processor = json.loads((served / "processor_config.json").read_text())
    assert processor["video_processor"]["size"] == {"shortest_edge": 1024, "longest_edge": 4096}
    assert processor["image_processor"]["image_mean"] == processor["video_processor"]["image_mean"]


def test_the_template_writes_the_trained_prompt_whatever_is_asked(served):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = (served / "vllm_chat_template.jinja").read_text()
    rendered = ImmutableSandboxedEnvironment().from_string(template).render(messages=[{"content": "Anything else?"}])
    loaded = load_directory(served)
    assert rendered == json.loads((served / "config.json").read_text())["action_classifier"]["prompt"]
    assert 'You watch "people" {{ closely }}.' in rendered
    assert rendered.endswith("<ACTION>")
    assert loaded.processor.processor.video_token in rendered


def test_the_plugin_reads_the_frames_of_training(served, tmp_path):
    video = make_clip(tmp_path / "clip.mp4", seed=5, num_frames=23)  # which four frames do not divide
    frames, told = read_bytes(video.read_bytes(), str(served))
    clip = load_clip(video, processor=load_directory(served).processor)
    np.testing.assert_array_equal(frames, clip.frames)
    assert told["frames_indices"] == list(clip.frame_indices)
    assert told["fps"] == clip.source_fps
    metadata = VideoMetadata(total_num_frames=told["total_num_frames"], fps=told["fps"])
    metadata.frames_indices = told["frames_indices"]
    assert 1 / metadata.sampled_fps == pytest.approx(clip.seconds_per_frame)  # Qwen2.5-VL's positions are seconds
    with pytest.raises(ValueError, match="export it again with export_engines: vllm"):
        read_bytes(video.read_bytes(), str(save_exported(tmp_path / "plain")))


def test_other_weights_than_those_that_were_measured_are_refused(tmp_path, monkeypatch):
    directory = save_exported(tmp_path / "model")
    asked = parity._asked

    def with_another_decoder(export_dir, clips, folder):
        file = export_dir / "action_decoder.safetensors"
        with safe_open(file, framework="pt") as opened:
            weights, metadata = {name: opened.get_tensor(name) + 1e-2 for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        save_file(weights, file, metadata=metadata)
        return asked(export_dir, clips, folder)

    monkeypatch.setattr(parity, "_asked", with_another_decoder)
    with pytest.raises(EngineError, match=r"expected at most 0.0001"):
        add_engines(directory, BOTH, machine=ModelConfig())


def test_another_family_is_refused(tmp_path):
    other = save_exported(tmp_path / "other", "llava_next_video")
    with pytest.raises(ConfigError, match="is a llava_next_video: leave export_engines out"):
        add_engines(other, ("transformers",), machine=ModelConfig())


def test_an_export_without_engines_leaves_none_of_an_earlier_one(tmp_path):
    directory = save_exported(tmp_path / "model")
    before = {path.name for path in directory.iterdir()}
    add_engines(directory, BOTH, machine=ModelConfig())
    assert {path.name for path in directory.iterdir()} > before
    remove_engines(directory)
    assert {path.name for path in directory.iterdir()} == before


def test_the_prompt_is_that_of_the_directory(served):
    prompt = load_directory(served).prompt
    assert prompt[-1] == Message(role="user", content="<video>What is the person doing? <ACTION>")
