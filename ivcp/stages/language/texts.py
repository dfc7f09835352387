"""A text without turns as tokens, with the media in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ivcp.data.prepared.sample import Tokens
from ivcp.data.prompts import TAGS, media_tags, render_conversation
from ivcp.models.families import UnsupportedModelError, placeholder_token
from ivcp.models.processor import Processor
from ivcp.models.sampled import SampledVideo
from ivcp.records import MediumKind, Message


def text_tokens(processor: Processor, text: str, media: Sequence[SampledVideo]) -> Tokens:
    """Tokens of a text, of which each `<video>` tag is a video and each `<image>` tag an image, and the token that ends
    texts.

    All are learned but those of media. There is no answer: the prompt of the sample is all of it.

    Raises:
        UnsupportedModelError: the model's chat template does not say how they stand in a text.
    """
    for kind in set(media_tags(text)) if media else ():
        text = text.replace(TAGS[kind], _placeholder(processor, kind))
    ids, types = processor.encode_piece(text, media, is_first=True)
    end = processor.processor.tokenizer.eos_token_id
    types = np.append(types, 0)
    return Tokens(
        input_ids=np.append(ids, end),
        mm_token_type_ids=types,
        loss_mask=types == 0,
        num_prompt_tokens=len(types),
    )


def _placeholder(processor: Processor, kind: MediumKind) -> str:
    """What the chat template writes for a medium: by how much a turn with two of them is longer than with one."""
    one, two = (
        render_conversation(processor.processor, [Message(role="user", content=f"{TAGS[kind] * count}X")])
        for count in (1, 2)
    )
    same = next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), len(one))
    found = two[same : same + len(two) - len(one)]
    is_repeated = one[:same].endswith(found) and two == one[:same] + found + one[same:]
    if not is_repeated or found.count(placeholder_token(processor.processor, kind)) != 1:
        raise UnsupportedModelError(
            f"the chat template of this {type(processor.processor).__name__} numbers {kind}s or writes them in several "
            "places: it does not say how one stands in a text without turns; train on conversations (stage sft)"
        )
    return found
