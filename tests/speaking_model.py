"""A tiny language model with random weights in the place of SmolLM2, of the same class and with such a tokenizer."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ivcp.demo.language.clips import draw_described_clips
from ivcp.demo.language.smollm2 import LanguageModel
from tests.tiny_family_parts import text_model

TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def language_model(seed: int = 0) -> LanguageModel:
    """Two layers, 32 numbers wide, tied embeddings."""
    words = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(text_model("llama", words, tie_word_embeddings=True), words)


def _tokenizer() -> Any:
    clips = draw_described_clips(0, 20, seed=0)
    corpus = [f"{each.question} {each.answer}" for clip in clips for each in clip.questions]
    corpus += [f" {word}" for clip in clips for frame in clip.descriptions for word in frame.words]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )
