"""Which processor turns clips into a model's inputs, and how a worker process gets it.

The module is light: only the processes that call `load_processor` import torch and transformers.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ivcp.models.source import local_model
from ivcp.settings import RunConfig, VideoConfig

if TYPE_CHECKING:
    from ivcp.models.processor import Processor

PRELOAD = "ivcp.models.processor"
"""What worker processes share one import of."""


@dataclass(frozen=True)
class ProcessorSettings:
    """A base model's processor, and how it sees videos."""

    model_name_or_path: str
    revision: str
    cache_dir: str | None
    trust_remote_code: bool
    special_tokens: tuple[str, ...]
    video: VideoConfig

    @classmethod
    def of(cls, config: RunConfig, *, special_tokens: tuple[str, ...]) -> ProcessorSettings:
        """The processor that a run prepares clips with; what lies at an address is downloaded, without its weights.

        Raises:
            ValueError: the run names no base model.
            FileNotFoundError, PermissionError, ConnectionError, RegistryError: it cannot be read.
        """
        model = config.model
        return cls(
            model_name_or_path=local_model(model.required_name, with_weights=False),
            revision=model.model_revision,
            cache_dir=model.cache_dir,
            trust_remote_code=model.trust_remote_code,
            special_tokens=special_tokens,
            video=config.video,
        )


@functools.cache
def load_processor(settings: ProcessorSettings) -> Processor:
    """The processor, loaded once in each process.

    Raises:
        OSError, ValueError: there is no such base model, or its tokenizer splits a special token.
    """
    from ivcp.models.processor import Processor

    return Processor.from_pretrained(
        settings.model_name_or_path,
        video=settings.video,
        special_tokens=settings.special_tokens,
        revision=settings.revision,
        cache_dir=settings.cache_dir,
        trust_remote_code=settings.trust_remote_code,
    )


def use_one_thread() -> None:
    """For worker processes, of which there are as many as cores."""
    import torch

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
