"""How vLLM is started: its words, and what is refused. vLLM itself is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivcp.serving.settings import ServerSettings
from ivcp.serving.vllm_engine import EngineError, become, vllm_serve
from ivcp.settings import config_from_settings
from tests.language import FRAMES
from tests.models import save_tiny_classifier
from tests.served_language import save_tiny_language_model
from tests.tiny_families import build_tiny_family


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("vllm") / "sft", "sft")


def command(model_dir: Path, *, run: dict | None = None, name: str | None = None, **settings):
    return vllm_serve(
        str(model_dir),
        host="0.0.0.0",
        port=8000,
        model_name=name,
        run=config_from_settings({"do_sample": False} | (run or {})),
        settings=ServerSettings(**settings),
    )


def options(words: list[str]) -> dict[str, str]:
    return dict(zip(words[3::2], words[4::2], strict=True))


def test_a_trained_model_is_served_as_it_was_trained(trained, tmp_path):
    (tmp_path / "key").write_text("a-key-of-more-than-sixteen\n")
    made = command(trained, max_context_tokens=2048, keys=str(tmp_path / "key"))
    assert made.words[:3] == ["vllm", "serve", str(trained)]
    given = options(made.words)
    assert (given["--host"], given["--port"], given["--served-model-name"]) == ("0.0.0.0", "8000", "sft")
    assert (given["--dtype"], given["--max-model-len"]) == ("float32", "2048")
    assert given["--model-impl"] == "transformers", "vLLM's own Qwen2-VL has other positions behind a video"
    assert json.loads(given["--media-io-kwargs"]) == {"video": {"num_frames": FRAMES["video_num_frames"]}}
    assert json.loads(given["--override-generation-config"])["temperature"] == 0
    assert made.variables == {"VLLM_API_KEY": "a-key-of-more-than-sixteen"}
    assert not any("a-key" in word for word in made.words), "everybody can read a command line"


def test_a_base_model_is_served_as_the_settings_say(tmp_path):
    base = build_tiny_family(tmp_path / "base", "qwen2_vl")
    run = {"video_fps": 1.0, "do_sample": True, "temperature": 0.5, "trust_remote_code": True}
    words = command(base, run=run, name="mine").words
    given = options(words[:-1])
    assert words[-1] == "--trust-remote-code"
    assert (given["--served-model-name"], given["--dtype"]) == ("mine", "auto")
    assert json.loads(given["--media-io-kwargs"]) == {"video": {"num_frames": 128, "fps": 1.0}}
    assert json.loads(given["--override-generation-config"])["temperature"] == 0.5


@pytest.mark.parametrize(
    ("stage", "message"),
    [("action_cls", r"classifier: export it with export_engines: vllm"), ("rm", "reward model")],
)
def test_what_vllm_does_not_serve_is_refused(tmp_path, stage, message):
    save = save_tiny_classifier if stage == "action_cls" else lambda folder: save_tiny_language_model(folder, stage)
    with pytest.raises(EngineError, match=message):
        command(save(tmp_path / "model"))


def test_settings_and_files_that_vllm_would_misread_are_refused(trained, tmp_path):
    with pytest.raises(EngineError, match="num_decoders, turn_tokens: settings of this project's own server"):
        command(trained, num_decoders=2, turn_tokens=8)
    (tmp_path / "a").write_text("a" * 20)
    (tmp_path / "b").write_text("b" * 20)
    with pytest.raises(EngineError, match="holds 2 keys, vLLM takes one"):
        command(trained, keys=str(tmp_path))
    extra = trained / "value_head.safetensors"
    extra.write_bytes(b"")
    try:
        with pytest.raises(EngineError, match=r"value_head\.safetensors in .* weights of the model"):
            command(trained)
    finally:
        extra.unlink()


def test_the_command_becomes_vllm(trained, tmp_path):
    """A script in vLLM's place shows that its words and its key arrive."""
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "key $VLLM_API_KEY"\nfor word in "$@"; do echo "<$word>"; done\n')
    script.chmod(0o755)
    (tmp_path / "key").write_text("a-key-of-more-than-sixteen")
    words = ["api", "--model-dir", str(trained), "--engine", "vllm", "--port", "9", f"keys={tmp_path / 'key'}"]
    environment = os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "ivcp.cli.main", *words, "temperature=0.5", "do_sample=true"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = done.stdout.splitlines()
    assert shown[:3] == ["key a-key-of-more-than-sixteen", "<serve>", f"<{trained}>"]
    assert {"<--port>", "<9>"} <= set(shown)
    assert '"temperature": 0.5' in done.stdout


def test_without_vllm_it_is_said_how_to_install_it(trained, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="pip install vllm"):
        become(command(trained))
