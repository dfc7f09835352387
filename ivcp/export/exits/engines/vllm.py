"""What vLLM needs beside a merged model, and how it is started on it.

    vllm_serve.sh                  starts vLLM on the directory as it has to be
    vllm_chat_template.jinja       the prompt of the training, whatever a client says
    classification_head.safetensors  a linear decoder under the names that vLLM looks for
    model.safetensors.index.json   names the weights: without it vLLM reads every safetensors file that it finds

vLLM computes these models with its own classes, or with transformers' ones (`--model-impl transformers`). Behind a
video, its own Qwen2-VL and Qwen2.5-VL count time steps into the positions, which transformers does not: they are right
only for short clips, where the other way is right for all, since it asks transformers for the positions of each clip.
Qwen3-VL writes times as text, and there vLLM's own class has transformers' positions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ivcp.export.exits.engines.json_files import change_json
from ivcp.export.exits.engines.names import states_task
from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.settings import VideoConfig
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.protocol import ClassifierHead
from ivcp.storage.atomic import write_whole

log = logging.getLogger(__name__)

OWN_CLASS = ("qwen3_vl",)
"""Model types that vLLM's own class computes as transformers does; transformers' class computes the others."""
HEAD_FILE, INDEX_FILE = "classification_head.safetensors", "model.safetensors.index.json"
TEMPLATE_FILE, PROCESSOR_FILE, SERVE_FILE = "vllm_chat_template.jinja", "processor_config.json", "vllm_serve.sh"
VLLM_FILES = (HEAD_FILE, INDEX_FILE, TEMPLATE_FILE, SERVE_FILE)

_OF_CLASSES = "# POST /classify with a video gives labels and probabilities."
_OF_STATES = "# `ivcp predict --model-dir DIR --vllm URL VIDEO` asks for states, and applies the decoder to them."
_SERVE = """#!/bin/sh
# Starts vLLM on this directory; more options of `vllm serve` may follow, such as --port 8000.
{use}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
exec vllm serve "$here" --runner pooling {task}{implementation} --dtype float32 \\
  --max-model-len {longest} --chat-template "$here/{template}" \\
  --media-io-kwargs "{{\\"video\\": {{\\"video_backend\\": \\"ivcp\\", \\"model_dir\\": \\"$here\\"}}}}" "$@"
"""


def add_vllm(export_dir: Path, loaded: LoadedModel, head: ClassifierHead, *, prompt: str) -> None:
    """Writes it. A linear decoder becomes the head of vLLM's classifier; for others vLLM gives the states."""
    kind, is_classifier = loaded.module.config.model_type, head.linear is not None
    files = sorted(export_dir.glob("model*.safetensors"))
    if head.linear is not None:
        files.append(_write_head(export_dir, loaded, *head.linear))
    _write_index(export_dir, files)
    change_json(export_dir / MODEL_CONFIG, lambda config: _for_vllm(config, kind, is_classifier=is_classifier))
    change_json(export_dir / PROCESSOR_FILE, lambda processor: _as_trained(processor, loaded.config.video, kind))
    write_whole(export_dir / TEMPLATE_FILE, f"{{{{- {json.dumps(prompt, ensure_ascii=False)} -}}}}")
    _write_command(export_dir, kind, head, longest=loaded.config.data.cutoff_len)


def _write_head(export_dir: Path, loaded: LoadedModel, weight: Tensor, bias: Tensor) -> Path:
    dtype = next(iter(loaded.module.backbone.parameters())).dtype
    tensors = {"score.weight": weight.to(dtype), "score.bias": bias.to(dtype)}
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, export_dir / HEAD_FILE)
    (export_dir / HEAD_FILE).chmod((export_dir / MODEL_CONFIG).stat().st_mode)
    return export_dir / HEAD_FILE


def _write_index(export_dir: Path, files: list[Path]) -> None:
    """Every tensor of the files, with its file."""
    places: dict[str, str] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file.name)
    size = sum(file.stat().st_size for file in files)
    content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    write_whole(export_dir / INDEX_FILE, json.dumps(content, indent=2) + "\n")


def _for_vllm(config: Mapping[str, Any], kind: str, *, is_classifier: bool) -> dict[str, Any]:
    """config.json as vLLM's class for the family reads it."""
    if kind not in OWN_CLASS:  # transformers' class keeps its name
        return dict(config)
    text = config["text_config"]
    rope = text["rope_parameters"] | {"mrope_interleaved": True}  # as transformers always has it
    (name,) = config["architectures"]
    if is_classifier:
        name = name.replace("ForConditionalGeneration", "ForSequenceClassification")
    return {**config, "architectures": [name], "text_config": text | {"rope_parameters": rope}}


def _as_trained(processor: Mapping[str, Any], video: VideoConfig, kind: str) -> dict[str, Any]:
    """The trained frame sizes, which the base model's processor does not know: frames of these sizes stay as they are.

    Qwen3-VL's count all frames of a clip. vLLM normalises on the device, with the numbers for images. It hands on what
    is known of a clip's times where a processor says that it samples frames, and asks for no sampling then.
    """
    videos, low, high = processor["video_processor"], video.video_min_pixels, video.video_max_pixels
    if kind == "qwen3_vl":
        fewest, most = video.video_num_frames or 2, video.video_num_frames or video.video_maxlen
        low, high = low * (fewest - fewest % 2), high * (most + most % 2)  # it counts pairs
    same = {name: videos[name] for name in ("image_mean", "image_std") if name in videos}
    changed = {"size": {"shortest_edge": low, "longest_edge": high}, "do_sample_frames": True}
    return {
        **processor,
        "video_processor": videos | changed,
        "image_processor": processor["image_processor"] | same,
    }


def _write_command(export_dir: Path, kind: str, head: ClassifierHead, *, longest: int) -> None:
    script = _SERVE.format(
        use=_OF_CLASSES if head.linear else _OF_STATES,
        task=_task(head),
        implementation="" if kind in OWN_CLASS else " --model-impl transformers",
        longest=longest,
        template=TEMPLATE_FILE,
    )
    write_whole(export_dir / SERVE_FILE, script)
    (export_dir / SERVE_FILE).chmod(0o755)
    log.info("vLLM serves the model with: %s", export_dir / SERVE_FILE)


def _task(head: ClassifierHead) -> str:
    """vLLM does one for all requests."""
    if head.linear:
        return "--convert classify"
    return f"--convert embed --pooler-config.task {states_task(head)}"
