"""What vLLM reads of a directory, by family and decoder; tests/integration/export/test_vllm.py asks vLLM itself."""

import json
import os
import subprocess

import pytest

from ivcp.export.exits.engines.write import add_engines
from ivcp.settings import ModelConfig
from tests.exported import save_exported


def exported(folder, family, **settings):
    directory = save_exported(folder / "it's a model", family, **settings)
    add_engines(directory, ("vllm",), machine=ModelConfig())
    return directory


def started(directory, folder, *words):
    """The words that the directory's script calls `vllm` with."""
    command = folder / "bin" / "vllm"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [str(directory / "vllm_serve.sh"), *words], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return ended.stdout.split("\0")[:-1]


def test_a_linear_qwen2_5_vl_is_a_classifier_of_transformers_class(tmp_path):
    directory = exported(tmp_path, "qwen2_5_vl", cutoff_len=300)
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert json.loads((directory / "processor_config.json").read_text())["video_processor"]["do_sample_frames"]
    words = started(directory, tmp_path, "--port", "8123")
    assert words[:6] == ["serve", str(directory), "--runner", "pooling", "--convert", "classify"]
    assert words[words.index("--model-impl") + 1] == "transformers"
    assert words[words.index("--max-model-len") + 1] == "300"
    assert words[words.index("--chat-template") + 1] == str(directory / "vllm_chat_template.jinja")
    reading = json.loads(words[words.index("--media-io-kwargs") + 1])
    assert reading == {"video": {"video_backend": "ivcp", "model_dir": str(directory)}}
    assert words[-2:] == ["--port", "8123"]


def test_a_linear_qwen3_vl_is_a_classifier_of_vllms_own_class(tmp_path):
    directory = exported(tmp_path, "qwen3_vl")
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForSequenceClassification"]
    assert config["text_config"]["rope_parameters"]["mrope_interleaved"] is True
    processor = json.loads((directory / "processor_config.json").read_text())
    assert processor["video_processor"]["size"] == {"shortest_edge": 4 * 1024, "longest_edge": 4 * 4096}
    assert "--model-impl" not in started(directory, tmp_path)


@pytest.mark.parametrize(("decoder", "states"), [("mlp", "embed"), ("transformer", "token_embed")])
def test_another_decoder_is_given_the_states_that_it_reads(tmp_path, decoder, states):
    directory = exported(tmp_path, "qwen3_vl", action_decoder_type=decoder)
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    index = json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == {"model.safetensors"}
    words = started(directory, tmp_path)
    assert words[words.index("--convert") : words.index("--dtype")] == [
        *("--convert", "embed", "--pooler-config.task", states)
    ]
