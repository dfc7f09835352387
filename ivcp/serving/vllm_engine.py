"""vLLM as another engine for a model that writes: the same command and options, `vllm serve` behind them.

vLLM reads videos itself; it is told how many frames a training clip has. Which of them, and their sizes, are its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ivcp import storage
from ivcp.export.exits.engines.vllm import INDEX_FILE, OWN_CLASS
from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.records import RUN_CONFIG_FILE
from ivcp.serving.kinds import kind_of
from ivcp.serving.settings import ServerSettings
from ivcp.settings import GenerationConfig, RunConfig, VideoConfig, read_model_config
from ivcp.stages.base_model import is_base_model

_COMMAND, _KEY_VARIABLE = "vllm", "VLLM_API_KEY"
_SETTINGS = frozenset({"infer_dtype", "keys", "max_context_tokens", "max_media", "max_requests"})
"""Settings of the server that vLLM has, too."""


class EngineError(ValueError):
    """vLLM cannot serve this; the message says what to do."""


@dataclass(frozen=True)
class VllmServe:
    """How vLLM is started."""

    words: list[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment: a key is no word of a command line, which everybody can read."""


def vllm_serve(
    model_dir: str, *, host: str, port: int, model_name: str | None, run: RunConfig, settings: ServerSettings
) -> VllmServe:
    """What starts vLLM on a merged model or a base model as `serve` would start this project's own server.

    Raises:
        EngineError: vLLM does not serve such a directory, or has no such setting.
        FileNotFoundError, PermissionError, ConnectionError: the directory cannot be read.
    """
    if odd := sorted(settings.model_fields_set - _SETTINGS):
        raise EngineError(
            f"{', '.join(odd)}: settings of this project's own server, which vLLM does not have: leave out"
        )
    _check_kind(model_dir)
    directory = storage.local_path(model_dir)
    if not (directory / MODEL_CONFIG).is_file():
        raise EngineError(f"{model_dir} is an adapter, vLLM serves whole models: merge it with `ivcp export` first")
    _check_weights(directory)
    trained = None if is_base_model(directory) else read_model_config(directory / RUN_CONFIG_FILE)
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "served-model-name": model_name or Path(directory).name,
        "dtype": _dtype(trained, settings),
        "max-model-len": settings.max_context_tokens,
        "max-num-seqs": settings.max_requests,
        "limit-mm-per-prompt": {"video": settings.max_media},
        "media-io-kwargs": {"video": _frames((trained or run).video)},
        "model-impl": _implementation(directory),
        "generation-config": "vllm",
        "override-generation-config": _generation(run.generation),
    }
    words = [_COMMAND, "serve", str(directory)]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    if run.model.trust_remote_code:
        words.append("--trust-remote-code")
    return VllmServe(words, _key(settings))


def become(command: VllmServe) -> NoReturn:
    """Runs vLLM in place of this process, so that signals reach it.

    Raises:
        EngineError: it is not installed.
    """
    found = shutil.which(_COMMAND)
    if found is None:
        raise EngineError(
            "the command vllm is not on the PATH: install vLLM in an environment of its own, since it needs another "
            "transformers (python -m venv vllm-env && vllm-env/bin/pip install vllm), and put its bin folder on the "
            "PATH; or leave out --engine vllm"
        )
    os.execve(found, command.words, os.environ | command.variables)


def _check_kind(model_dir: str) -> None:
    kind = kind_of(model_dir)
    if kind == "classifier":
        raise EngineError(
            f"{model_dir} is a classifier: export it with export_engines: vllm, and start its vllm_serve.sh "
            "(docs/exits.md)"
        )
    if kind == "scorer":
        raise EngineError(
            f"{model_dir} is a reward model, whose value head vLLM does not know: leave out --engine vllm"
        )


def _check_weights(directory: Path) -> None:
    others = [path.name for path in sorted(directory.glob("*.safetensors")) if not path.name.startswith("model")]
    if others and not (directory / INDEX_FILE).is_file():
        raise EngineError(
            f"{', '.join(others)} in {directory}: vLLM would take it for weights of the model: move it elsewhere"
        )


def _implementation(directory: Path) -> str:
    """Whose class computes it. vLLM's own ones count the positions behind a video in other ways than the training did
    (Qwen2-VL), or do not know the names of today's weights (LLaVA-OneVision)."""
    config = json.loads((directory / MODEL_CONFIG).read_text(encoding="utf-8"))
    return "transformers" if "vision_config" in config and config["model_type"] not in OWN_CLASS else "auto"


def _dtype(trained: RunConfig | None, settings: ServerSettings) -> str:
    """What the model was trained in, unless the settings say otherwise; of a base model vLLM decides."""
    if settings.infer_dtype != "auto" or trained is None:
        return settings.infer_dtype
    return "bfloat16" if trained.train.bf16 else "float16" if trained.train.fp16 else "float32"


def _frames(video: VideoConfig) -> dict[str, Any]:
    if video.video_num_frames is not None:
        return {"num_frames": video.video_num_frames}
    return {"num_frames": video.video_maxlen, "fps": video.video_fps}


def _generation(settings: GenerationConfig) -> dict[str, Any]:
    common = {"max_new_tokens": settings.max_new_tokens, "repetition_penalty": settings.repetition_penalty}
    if not settings.do_sample:
        return {"temperature": 0.0, **common}
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k or -1,
        **common,
    }


def _key(settings: ServerSettings) -> dict[str, str]:
    if settings.keys is None:
        return {}
    path = Path(settings.keys)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if not file.name.startswith(".")]
    if len(files) != 1:
        raise EngineError(f"keys: {path} holds {len(files)} keys, vLLM takes one: give the path of its file")
    return {_KEY_VARIABLE: files[0].read_text(encoding="utf-8").strip()}
