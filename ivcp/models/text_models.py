"""Models that read texts alone: another class of transformers, and a tokenizer in the place of a processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ivcp.models.base_files import has_processor
from ivcp.models.families import UnsupportedModelError
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import (  # noqa: E402
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)


class TextProcessor:
    """A tokenizer as a processor without media; it saves what the tokenizer saves."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @property
    def model_input_names(self) -> list[str]:
        """What a model takes of it."""
        return list(self.tokenizer.model_input_names)

    def get_attributes(self) -> list[str]:
        """Its parts, as transformers' processors name them."""
        return ["tokenizer"]

    def apply_chat_template(self, turns: Sequence[dict[str, Any]], **options: Any) -> str:
        """The rendered conversation: templates of text models know a content that is text only, and no parts.

        Raises:
            UnsupportedModelError: a turn shows something.
        """
        rendered: str = self.tokenizer.apply_chat_template(
            [turn | {"content": "".join(map(_text_of, turn["content"]))} for turn in turns], **options
        )
        return rendered

    def save_pretrained(self, directory: Path) -> None:
        """Writes the tokenizer's files and its chat template."""
        self.tokenizer.save_pretrained(directory)


def _text_of(part: dict[str, str]) -> str:
    if part["type"] != "text":
        raise reads_no(part["type"])
    return part["text"]


def reads_no(kind: str) -> UnsupportedModelError:
    """What is wrong with a medium of a kind that is given to a text model."""
    return UnsupportedModelError(
        f"the model reads texts only, and {kind}s came: take a video language model such as Qwen2-VL, Qwen3-VL, "
        f"LLaVA-NeXT-Video or InternVL (docs/model_families.md lists the tested ones), or texts without {kind}s"
    )


def read_processor(name: str, **options: Any) -> Any:
    """transformers' processor of a model, or a `TextProcessor` of one that has a tokenizer alone."""
    # The folder of an adapter has no configuration that would name its model: transformers finds no tokenizer there
    # unless it is asked for one.
    auto = AutoTokenizer if Path(name).is_dir() and not has_processor(Path(name)) else AutoProcessor
    read = auto.from_pretrained(name, **options)
    return TextProcessor(read) if isinstance(read, PreTrainedTokenizerBase) else read
