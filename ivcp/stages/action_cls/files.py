"""What the action classifier adds to a directory: the decoder, the action token's row, the labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ivcp.models.backbone_files import ModelFilesError, weights_below
from ivcp.records import LABELS_FILE, Labels
from ivcp.records.problem_types import SINGLE_LABEL, TargetScale
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier

DECODER_FILE = "action_decoder.safetensors"
TOKEN_ROW_FILE = "action_token.safetensors"
FILES = (DECODER_FILE, TOKEN_ROW_FILE, LABELS_FILE)


def save_own_files(directory: Path, classifier: ActionClassifier, weights: Mapping[str, Tensor]) -> None:
    """Writes `FILES`; `weights` are the classifier's, gathered, by the names of its `state_dict`."""
    decoder = weights_below("decoder", weights)
    save_decoder(classifier.decoder, directory / DECODER_FILE, labels=classifier.labels, weights=decoder)
    save_file({"row": weights["action_token_row"].detach().cpu().contiguous()}, directory / TOKEN_ROW_FILE)
    classifier.labels.write(directory / LABELS_FILE)


def save_decoder(decoder: ActionDecoder, path: Path, *, labels: Labels, weights: Mapping[str, Tensor]) -> None:
    """Writes a decoder's weights with its shape and its labels as metadata."""
    metadata = {
        "format_version": "1",
        "shape": decoder.shape.model_dump_json(),
        "label_names": json.dumps(labels.label_names, ensure_ascii=False),
    }
    if labels.problem_type != SINGLE_LABEL:
        metadata["problem_type"] = labels.problem_type
    if labels.scale is not None:
        metadata["scale"] = labels.scale.model_dump_json()
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path, metadata=metadata)


def load_decoder(path: Path, *, labels: Labels, dropout: float = 0.0) -> ActionDecoder:
    """Reads a decoder, as `action_decoder_path` names it: a file, or a directory that holds one.

    Raises:
        ModelFilesError: there is none, or it was trained for other labels.
    """
    file = path / DECODER_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelFilesError(f"no action decoder at {file}: expected a file that training wrote")
    with safe_open(file, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    if not {"shape", "label_names"} <= set(metadata):
        raise ModelFilesError(f"{file} holds no description of its decoder: it was not written by this project")
    names = tuple(json.loads(metadata["label_names"]))
    if names != labels.label_names:
        raise ModelFilesError(
            f"{file} was trained for {len(names)} labels ({', '.join(names[:5])}, …), the data has "
            f"{labels.num_classes} ({', '.join(labels.label_names[:5])}, …): labels and their order must agree"
        )
    kind = metadata.get("problem_type", SINGLE_LABEL)
    if kind != labels.problem_type:
        raise ModelFilesError(f"{file} was trained for problem_type: {kind}, the data is of {labels.problem_type}")
    decoder = ActionDecoder(DecoderShape.model_validate_json(metadata["shape"]), dropout=dropout)
    decoder.load_state_dict(weights)
    if "scale" in metadata and labels.scale is not None:
        _rescale(decoder, TargetScale.model_validate_json(metadata["scale"]), labels.scale)
    return decoder


@torch.no_grad()
def _rescale(decoder: ActionDecoder, found: TargetScale, wanted: TargetScale) -> None:
    """Makes a decoder's numbers those of another scale: it tells the same values."""
    if found == wanted:
        return
    last = [module for module in decoder.modules() if isinstance(module, nn.Linear)][-1]
    last.weight.mul_(found.std / wanted.std)
    last.bias.mul_(found.std / wanted.std).add_((found.mean - wanted.mean) / wanted.std)


def read_token_row(directory: Path) -> Tensor:
    """The saved row of the action token, (hidden_size,)."""
    with safe_open(directory / TOKEN_ROW_FILE, framework="pt") as opened:
        row: Tensor = opened.get_tensor("row")
    return row


def read_own_weights(directory: Path, *, labels: Labels) -> dict[str, Tensor]:
    """The decoder's and the row's weights, by their names in the classifier's `state_dict`.

    Raises:
        ModelFilesError: the decoder was trained for other labels.
    """
    decoder = load_decoder(directory, labels=labels)
    weights = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    return weights | {"action_token_row": read_token_row(directory)}
