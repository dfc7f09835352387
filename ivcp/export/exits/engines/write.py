"""Makes an exported directory one that transformers alone, and vLLM, read as a classifier too.

    config.json                    labels, and all that the code beside it needs (`action_classifier`)
    ivcp_classifier.py             the classifier and a pipeline for transformers, with nothing of ivcp

and what `ivcp.export.exits.engines.vllm` says.

The loader of this project goes on reading the directory: nothing that it reads is changed but the frame sizes of the
processor, which it decides itself, and what the processor does to images.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ivcp.data.prompts import render_prompt
from ivcp.export.exits.engines.json_files import change_json
from ivcp.export.exits.engines.names import VLLM
from ivcp.export.exits.engines.parity import check_parity
from ivcp.export.exits.engines.vllm import VLLM_FILES, add_vllm
from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.models.families import frame_step
from ivcp.records import Labels
from ivcp.settings import ConfigError, ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.protocol import ClassifierHead

log = logging.getLogger(__name__)

CODE_FILE = "ivcp_classifier.py"


def remove_engines(export_dir: Path) -> None:
    """Removes what an earlier export wrote for engines."""
    for name in (CODE_FILE, *VLLM_FILES):
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
        add_vllm(export_dir, loaded, head, prompt=prompt)
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
    described = _described(loaded, head, prompt=prompt, step=step)
    change_json(export_dir / MODEL_CONFIG, lambda config: {**config, **described})


def _described(loaded: LoadedModel, head: ClassifierHead, *, prompt: str, step: int) -> dict[str, Any]:
    video = loaded.config.video
    return {
        **_label_settings(loaded.labels),
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
    }


def _label_settings(labels: Labels) -> dict[str, Any]:
    return {
        "num_labels": labels.num_classes,
        "id2label": {str(number): name for number, name in enumerate(labels.label_names)},
        "label2id": {name: number for number, name in enumerate(labels.label_names)},
    }
