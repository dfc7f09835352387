"""The files of a base model in a local folder: whether they are all there and whole, before any of them is loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_POINTER = b"version https://git-lfs"
_MOST_BYTES_OF_A_POINTER = 1024
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header."""


class BaseFilesError(ValueError):
    """A base model whose files are missing or damaged; the message names each."""


def check_base_files(
    folder: Path, *, with_weights: bool, has_own_code: bool = False, has_media: bool = True, called: str | None = None
) -> None:
    """Checks a model's folder; reads no weights, only where they end.

    `has_own_code` is for a model whose code comes with it: that may call its tokenizer's files what it likes. `called`
    is what messages call a folder that is a copy. Without `has_media` it may be a text model.

    Raises:
        BaseFilesError: names every file that is missing or damaged.
    """
    problems = [*_pointers(folder), *_damaged_json(folder)]
    if not problems:
        problems += [] if has_own_code else _missing_of_processor(folder, has_media or not _is_text_model(folder))
        problems += _wrong_weights(folder) if with_weights else []
    if problems:
        raise BaseFilesError(f"the base model {called or folder.absolute()} cannot be used: {'; '.join(problems)}")


def check_weights(folder: Path, *, called: str | None = None) -> None:
    """Checks the weights of a model's folder alone; `called` as above.

    Raises:
        BaseFilesError: names every file that is missing or damaged.
    """
    if problems := _wrong_weights(folder):
        raise BaseFilesError(f"the model {called or folder.absolute()} cannot be used: {'; '.join(problems)}")


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads a model's weights from."""
    for whole in _WEIGHTS:
        index = folder / f"{whole}.index.json"
        if index.is_file():
            described: dict[str, dict[str, str]] = json.loads(index.read_text(encoding="utf-8"))
            return [folder / name for name in sorted(set(described["weight_map"].values()))]
        if (folder / whole).is_file():
            return [folder / whole]
    return []


def _pointers(folder: Path) -> list[str]:
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file() and is_pointer(path)]
    if not names:
        return []
    return [f"Git LFS pointers in the place of files: {', '.join(names)}; run `git lfs pull` there, or `hf download`"]


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git leaves in the place of a large one."""
    if path.stat().st_size > _MOST_BYTES_OF_A_POINTER:
        return False
    return path.read_bytes().startswith(_POINTER)


def _damaged_json(folder: Path) -> list[str]:
    return [
        f"{path.name} is no valid JSON: download it again"
        for path in sorted(folder.glob("*.json"))
        if path.is_file() and not is_pointer(path) and _read_json(path) is None
    ]


def has_processor(folder: Path) -> bool:
    """Whether a model's folder, or an adapter's, has more than a tokenizer."""
    return _any(folder, _PROCESSORS)


def _is_text_model(folder: Path) -> bool:
    path = folder / "config.json"
    described = _read_json(path) if path.is_file() else None
    if not isinstance(described, dict) or "vision_config" in described or "audio_config" in described:
        return False
    return any(str(name).endswith("ForCausalLM") for name in described.get("architectures") or ())


def _missing_of_processor(folder: Path, has_media: bool) -> Iterator[str]:
    if not _any(folder, _TOKENIZERS):
        yield f"it has no tokenizer: expected one of {', '.join(_TOKENIZERS)}"
    if has_media and not has_processor(folder):
        is_text = "; a text model learns to write (stage: sft, pt, dpo, …) and classifies no videos"
        yield (
            f"it has no processor for videos: expected one of {', '.join(_PROCESSORS)}"
            f"{is_text if _is_text_model(folder) else ''}"
        )
    in_settings = (folder / "tokenizer_config.json", *(folder / name for name in _PROCESSORS))
    if not _any(folder, _TEMPLATES) and not any(_has_template(path) for path in in_settings):
        yield (
            f"it has no chat template: expected {' or '.join(_TEMPLATES)}, or chat_template in tokenizer_config.json; "
            "take a model that was trained to chat (its name often ends in Instruct), or copy its family's template"
        )


def _wrong_weights(folder: Path) -> list[str]:
    for whole in _WEIGHTS:
        index = folder / f"{whole}.index.json"
        if index.is_file():
            return _wrong_shards(folder, index)
        if (folder / whole).is_file():
            problem = damage(folder / whole)
            return [problem] if problem else []
    return [f"it has no weights: expected {_WEIGHTS[0]}, or {_WEIGHTS[0]}.index.json with the files that it names"]


def _wrong_shards(folder: Path, index: Path) -> list[str]:
    described = _read_json(index)
    weight_map = described.get("weight_map") if isinstance(described, dict) else None
    if not isinstance(weight_map, dict):
        return [f"{index.name} has no weight_map: download it again"]
    shards = sorted({str(name) for name in weight_map.values()})
    missing = [name for name in shards if not (folder / name).is_file()]
    problems = [f"{len(missing)} of {len(shards)} weight files are missing: {', '.join(missing)}"] if missing else []
    return problems + [problem for name in shards if name not in missing and (problem := damage(folder / name))]


def damage(path: Path) -> str | None:
    """What is wrong with a file of weights, without reading them; null where nothing is."""
    size = path.stat().st_size
    if is_pointer(path):
        return f"{path.name} is a Git LFS pointer and not the file itself: run `git lfs pull` there"
    if path.suffix == ".bin":
        return None if zipfile.is_zipfile(path) else f"{path.name} ({size:,} bytes) is cut off: download it again"
    try:
        expected = _safetensors_size(path)
    except ValueError:
        return f"{path.name} ({size:,} bytes) is no safetensors file: download it again"
    if size == expected:
        return None
    return f"{path.name} has {size:,} of {expected:,} bytes: the download was cut off, download it again"


def _safetensors_size(path: Path) -> int:
    """The bytes that a safetensors file has by its header.

    Raises:
        ValueError: it has no header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < length <= path.stat().st_size:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return _LENGTH_BYTES + length + max(ends, default=0)


def _any(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _has_template(path: Path) -> bool:
    content = _read_json(path) if path.is_file() else None
    return isinstance(content, dict) and bool(content.get("chat_template"))


def _read_json(path: Path) -> Any | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
