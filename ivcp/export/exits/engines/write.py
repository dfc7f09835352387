"""Makes an exported directory one that transformers alone, and vLLM, read as a classifier too.

    config.json                    labels, and all that the code beside it needs (`action_classifier`)
    ivcp_classifier.py             the classifier and a pipeline for transformers, with nothing of ivcp
    classification_head.safetensors  a linear decoder under the names that vLLM looks for
    model.safetensors.index.json   names the weights: without it vLLM reads every safetensors file that it finds
    vllm_chat_template.jinja       the prompt of the training, whatever a client says

The loader of this project goes on reading the directory: nothing that it reads is changed but the frame sizes of the
processor, which it decides itself.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from ivcp.data.prompts import render_prompt
from ivcp.export.exits.engines.parity import check_parity
from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.models.families import frame_step
from ivcp.records import RUN_CONFIG_FILE, Labels
from ivcp.settings import ConfigError, ModelConfig, read_model_config
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.protocol import ClassifierHead
from ivcp.storage.atomic import write_whole

log = logging.getLogger(__name__)

VLLM, TRANSFORMERS = "vllm", "transformers"
CODE_FILE = "ivcp_classifier.py"
HEAD_FILE, INDEX_FILE = "classification_head.safetensors", "model.safetensors.index.json"
TEMPLATE_FILE, PROCESSOR_FILE = "vllm_chat_template.jinja", "processor_config.json"
_OF_VLLM = ("Qwen2VL",)
"""Families whose directory vLLM 0.32 serves with this project's probabilities. Qwen3-VL's were up to 0.017 away,
Qwen2.5-VL's 0.056."""


def check_engines(adapter_dir: Path, engines: Collection[str]) -> None:
    """Checks, before the merge, what the settings of a training show.

    Raises:
        ConfigError: an engine cannot serve such a decoder.
    """
    decoder = read_model_config(adapter_dir / RUN_CONFIG_FILE).action_cls.action_decoder_type
    if VLLM in engines and decoder != "linear":
        raise ConfigError(
            f"export_engines: vllm serves a linear decoder, {adapter_dir} has action_decoder_type: {decoder}: leave "
            "vllm out; what it can do for other decoders is to give the states (`vllm serve --convert embed`, "
            "/pooling), which the decoder then reads outside: docs/exits.md"
        )


def remove_engines(export_dir: Path) -> None:
    """Removes what an earlier export wrote for engines."""
    for name in (CODE_FILE, HEAD_FILE, INDEX_FILE, TEMPLATE_FILE):
        (export_dir / name).unlink(missing_ok=True)


def add_engines(export_dir: Path, engines: Collection[str], *, machine: ModelConfig) -> float:
    """Writes what `engines` need beside the merged model, and compares: the largest difference of logits.

    Raises:
        EngineError: a fresh process with transformers alone answers differently, or not at all.
        ConfigError: an engine cannot serve this model.
    """
    loaded = load_directory(export_dir, machine=machine, device="cpu", dtype=_float32())
    head = loaded.stage.classifier_head(loaded.module)
    step = frame_step(loaded.processor.processor.video_processor)
    if head is None or step is None or "video_grid_thw" not in loaded.processor.processor.model_input_names:
        raise ConfigError(
            f"export_engines: expected a model of Qwen's video families (frames on a grid of patches), {export_dir} is "
            f"a {loaded.module.config.model_type}: leave export_engines out"
        )
    prompt = _prompt(loaded, head)
    _describe(export_dir, loaded, head, prompt=prompt, step=step)
    shutil.copyfile(Path(__file__).with_name(CODE_FILE), export_dir / CODE_FILE)
    if VLLM in engines:
        _add_vllm(export_dir, loaded, head, prompt=prompt)
    difference = check_parity(export_dir, loaded)
    log.info("transformers alone against ivcp: |Δ logit| ≤ %.2g", difference)
    return difference


def _float32() -> Any:
    import torch

    return torch.float32


def _prompt(loaded: LoadedModel, head: ClassifierHead) -> str:
    """The text that the model reads, with its own placeholder for the video."""
    processor = loaded.processor.processor
    token = processor.tokenizer.convert_ids_to_tokens(head.token_id)
    return render_prompt(processor, loaded.prompt, action_token=token)


def _describe(export_dir: Path, loaded: LoadedModel, head: ClassifierHead, *, prompt: str, step: int) -> None:
    video, labels = loaded.config.video, loaded.labels
    _change(
        export_dir / MODEL_CONFIG,
        {
            **_label_settings(labels),
            "auto_map": {"AutoModelForSequenceClassification": "ivcp_classifier.ActionClassifier"},
            "custom_pipelines": {
                "video-classification": {
                    "impl": "ivcp_classifier.ActionClassificationPipeline",
                    "pt": ["AutoModelForSequenceClassification"],
                    "type": "video",
                }
            },
            "action_classifier": {
                "action_token_id": head.token_id,
                "prompt": prompt,
                "decoder": head.shape,
                "video": {
                    "num_frames": video.video_num_frames,
                    "fps": video.video_fps,
                    "max_frames": video.video_maxlen,
                    "min_pixels": video.video_min_pixels,
                    "max_pixels": video.video_max_pixels,
                    "step": step,
                },
            },
        },
    )


def _label_settings(labels: Labels) -> dict[str, Any]:
    return {
        "num_labels": labels.num_classes,
        "id2label": {str(number): name for number, name in enumerate(labels.label_names)},
        "label2id": {name: number for number, name in enumerate(labels.label_names)},
    }


def _add_vllm(export_dir: Path, loaded: LoadedModel, head: ClassifierHead, *, prompt: str) -> None:
    (architecture,) = json.loads((export_dir / MODEL_CONFIG).read_text(encoding="utf-8"))["architectures"]
    if head.linear is None or architecture.removesuffix("ForConditionalGeneration") not in _OF_VLLM:
        raise ConfigError(
            f"export_engines: vllm gives this project's answers for {', '.join(_OF_VLLM)} with a linear decoder, "
            f"{export_dir} is a {architecture}: leave vllm out"
        )
    weight, bias = head.linear
    dtype = next(iter(loaded.module.backbone.parameters())).dtype
    tensors = {"score.weight": weight.to(dtype), "score.bias": bias.to(dtype)}
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, export_dir / HEAD_FILE)
    (export_dir / HEAD_FILE).chmod((export_dir / MODEL_CONFIG).stat().st_mode)
    _write_index(export_dir)
    _set_frame_sizes(export_dir, loaded)
    write_whole(export_dir / TEMPLATE_FILE, f"{{{{- {json.dumps(prompt, ensure_ascii=False)} -}}}}")


def _write_index(export_dir: Path) -> None:
    """Every tensor of the model's files and of the head, with its file."""
    files = [*sorted(export_dir.glob("model*.safetensors")), export_dir / HEAD_FILE]
    places: dict[str, str] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file.name)
    size = sum(file.stat().st_size for file in files)
    content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    write_whole(export_dir / INDEX_FILE, json.dumps(content, indent=2) + "\n")


def _set_frame_sizes(export_dir: Path, loaded: LoadedModel) -> None:
    """The trained sizes, which the base model's processor does not know: an engine that resizes does so by them."""
    video = loaded.config.video
    size = {"shortest_edge": video.video_min_pixels, "longest_edge": video.video_max_pixels}
    file = export_dir / PROCESSOR_FILE
    described = json.loads(file.read_text(encoding="utf-8"))
    _change(file, {"video_processor": described["video_processor"] | {"size": size}})


def _change(file: Path, added: dict[str, Any]) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) | added
    write_whole(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
