"""What differs between families of video language models, in one place.

Nothing here knows a model by its name: model, configuration and processor are asked. `docs/model_families.md` lists the
families that are tested.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivcp.models.auto_class import hears_alone, is_text_model
from ivcp.models.towers import towers_of
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import ProcessorMixin  # noqa: E402
from transformers.models.auto.configuration_auto import model_type_to_module_name  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES  # noqa: E402
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES  # noqa: E402

_OURS = {
    "do_resize": False,
    "do_center_crop": False,
    "do_sample_frames": False,
    # VideoLLaMA3 drops tokens of still regions: then the tokens of a prompt would depend on pixels, and a clip whose
    # frames are augmented or disturbed would no longer fit its prompt.
    "use_token_compression": False,
    # MiniCPM-V can take the last frames of a clip for pictures between the others; ours are all alike.
    "stack_frames": 1,
}
"""Settings of video processors that this project decides: it samples and sizes frames itself."""

_MERGERS_IN_TOWER = re.compile(r"(merger|deepstack_merger_list)\.")
"""Parts of a Qwen vision tower that are its projector."""

_MODALITIES = {"pixel_values": "image", "pixel_values_videos": "video", "input_features": "audio"}
_TIMES = ("second_per_grid_ts", "video_second_per_grid")
"""What models call the seconds of a temporal patch."""

_EXPECTED = (
    "expected a video language model of transformers such as Qwen2-VL, Qwen3-VL, LLaVA-NeXT-Video or InternVL "
    "(docs/model_families.md lists the tested ones, and those that hear, such as Qwen2.5-Omni): set model_name_or_path "
    "to one"
)


class UnsupportedModelError(ValueError):
    """A model that cannot read what it is given here; the message says what was expected, what came and what to do."""


def check_reads_videos(config: Any, source: str) -> None:
    """Checks by the configuration alone that a model is no text model; `source` names it in the message.

    Raises:
        UnsupportedModelError: it is.
    """
    if is_text_model(config):
        raise UnsupportedModelError(f"{source} is a {config.model_type} model, which reads texts only; {_EXPECTED}")


def check_architecture(config: Any, source: str) -> None:
    """Checks by the configuration alone that a model reads videos or sounds, and text, or is a language model that
    reads texts alone; `source` names it in the message.

    Models whose code comes with them (`trust_remote_code`) are asked by what their configuration offers.

    Raises:
        UnsupportedModelError: it is an image model, an encoder-decoder, or a text model of another kind.
    """
    kind = config.model_type
    if is_text_model(config) and not config.is_encoder_decoder:
        return
    offered: Mapping[str, str] = config.to_dict().get("auto_map") or {}
    only_hears = hears_alone(config)
    if (
        kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        and "AutoModelForImageTextToText" not in offered
        and not only_hears
    ):
        raise UnsupportedModelError(f"{source} is a {kind} model, which reads no video with its text; {_EXPECTED}")
    # The thinker of an omni model is in transformers' lists under the name of its family.
    known = {kind, model_type_to_module_name(kind)}
    if known.isdisjoint(VIDEO_PROCESSOR_MAPPING_NAMES) and not offered and not only_hears:
        raise UnsupportedModelError(f"{source} is a {kind} model, which reads images but no videos; {_EXPECTED}")
    if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
        raise UnsupportedModelError(
            f"{source} is a {kind} model, an encoder-decoder: the state at the action token of a causal language model "
            f"is classified; {_EXPECTED}"
        )


def check_decoder(model: Any, source: str) -> None:
    """Checks that the language model's layers are where they are looked for; `source` names it in the message.

    Raises:
        UnsupportedModelError: they are not, as in text models of the first years (GPT-2, BLOOM, Falcon).
    """
    if "layers" not in dict(model.get_decoder().named_children()):
        raise UnsupportedModelError(
            f"{source} is a {model.config.model_type} model, whose layers are built and named in a way of their own: "
            "take a newer one, such as Qwen3 or Llama"
        )


def check_processor(processor: Any, source: str) -> None:
    """Checks that a processor of a model that sees or hears prepares videos or sounds, and text; `source` names it in
    the message.

    Raises:
        UnsupportedModelError: it is the tokenizer of a text model, the processor of an image model, or one with two
            tokenizers.
    """
    came = type(processor).__name__
    if not isinstance(processor, ProcessorMixin):
        raise UnsupportedModelError(f"{source} has a {came} and no processor for videos: a text model; {_EXPECTED}")
    parts = processor.get_attributes()
    if "tokenizer" not in parts or not {"video_processor", "feature_extractor"}.intersection(parts):
        raise UnsupportedModelError(f"{source} has a {came} of {', '.join(parts)} and no video processor; {_EXPECTED}")
    second = [name for name in processor.get_attributes() if name.endswith("_tokenizer")]
    if second:
        raise UnsupportedModelError(
            f"{source} has a {came} with a {second[0]}: its vision side reads the question too, which prepared clips "
            f"do not hold; {_EXPECTED}"
        )


def sees_videos(processor: Any) -> bool:
    """Whether a processor prepares videos."""
    return "video_processor" in processor.get_attributes()


def check_sees_videos(processor: Any) -> None:
    """Checks that a processor prepares videos; one of sounds need not.

    Raises:
        UnsupportedModelError: it does not.
    """
    if not sees_videos(processor):
        raise UnsupportedModelError(
            f"{type(processor).__name__} reads no videos: it is for the stages that train a model to write, on rows "
            f"without videos; for videos {_EXPECTED}"
        )


def frame_step(video_processor: Any) -> int | None:
    """Pixels that height and width of a frame are multiples of: a patch times what is merged into one token.

    None for a model with one fixed frame size (`fixed_frame_size`).
    """
    names = settings_of(video_processor)
    if "downsample_mode" in names:  # MiniCPM-V merges 2x2 patches twice, or once
        return int(video_processor.patch_size) * (2 if video_processor.downsample_mode == "4x" else 4)
    if "merge_size" in names and video_processor.merge_size:
        return int(video_processor.patch_size) * int(video_processor.merge_size)
    return None


def fixed_frame_size(video_processor: Any) -> tuple[int, int]:
    """The (height, width) in pixels that every frame has.

    Raises:
        UnsupportedModelError: the processor does not name one.
    """
    if "max_image_size" in settings_of(video_processor):  # SmolVLM
        side = int(video_processor.max_image_size["longest_edge"])
        return side, side
    size = video_processor.crop_size if video_processor.do_center_crop else video_processor.size
    if not (size and size.get("height") and size.get("width")):
        raise UnsupportedModelError(
            f"{type(video_processor).__name__} names no frame size: expected size or crop_size with height and width "
            f"in the model's video processor configuration, it has size = {video_processor.size}, crop_size = "
            f"{video_processor.crop_size}"
        )
    return int(size["height"]), int(size["width"])


def processor_settings(video_processor: Any) -> dict[str, Any]:
    """How to call a video processor on frames that are sampled and sized already."""
    names = settings_of(video_processor)
    return {name: value for name, value in _OURS.items() if name in names}


def check_rendered(processor: Any, text: str, *, num_videos: int = 1, num_images: int = 0, num_audios: int = 0) -> None:
    """Checks that the chat template wrote the media into a prompt.

    Raises:
        UnsupportedModelError: it did not.
    """
    numbers = {"video": num_videos, "image": num_images, "audio": num_audios}
    for kind in (kind for kind, number in numbers.items() if number):
        token = placeholder_token(processor, kind)
        if token not in text:
            raise UnsupportedModelError(
                f"the chat template of this {type(processor).__name__} put no {kind} into the prompt: expected one "
                f'that writes {token} for content of {{"type": "{kind}"}}; take the chat template of the family\'s '
                "video model"
            )


def placeholder_token(processor: Any, kind: str) -> str:
    """What stands in a rendered text for a medium of a kind, `video`, `image` or `audio`.

    Raises:
        UnsupportedModelError: the model reads none of this kind.
    """
    token: str | None = getattr(processor, f"{kind}_token", None)
    if token is None:
        raise UnsupportedModelError(
            f"{type(processor).__name__} reads no {kind}s: take a model that does (docs/model_families.md), or rows "
            "without them"
        )
    return token


def vision_token_types(
    processor: Any, input_ids: NDArray[np.int64], token_types: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Modality of tokens, (num_tokens,): not 0 exactly where a vision feature goes, in the processor's own numbers.

    Some processors mark the tokens around a frame too (InternVL's `<img>`), which are text to the model.
    """
    types: NDArray[np.int64] = np.where(np.isin(input_ids, media_token_ids(processor)), token_types, 0)
    return types


def media_token_ids(processor: Any) -> list[int]:
    """The tokens that stand for media; families whose videos are images to the model have one only."""
    ids = [getattr(processor, f"{kind}_token_id", None) for kind in ("image", "video", "audio")]
    return [token_id for token_id in ids if token_id is not None]


def vision_inputs(processor: Any, clips: Sequence[Tensor]) -> dict[str, Tensor]:
    """The pixel tensors of clips as the model takes them; clips are (num_frames, 3, height, width), uint8, sized.

    Raises:
        UnsupportedModelError: the model takes clips of one length only, and these have several.
    """
    video_processor = processor.video_processor
    # Without return_tensors: clips that the model takes as they are come as a list.
    encoded = video_processor(list(clips), **processor_settings(video_processor))
    inputs = {name: encoded[name] for name in video_processor.model_input_names}
    if isinstance(inputs.get("pixel_values_videos"), list):
        frames = inputs.pop("pixel_values_videos")
        if "pixel_values_videos" not in processor.model_input_names:  # InternVL's model knows images only
            inputs["pixel_values"] = torch.cat(frames)
        else:
            inputs["pixel_values_videos"] = _joined(processor, frames)
    return {name: value if isinstance(value, Tensor) else torch.stack(list(value)) for name, value in inputs.items()}


def _joined(processor: Any, clips: list[Tensor]) -> Tensor:
    """One tensor of clips, (clips, num_frames, 3, height, width), whatever their lengths.

    A model that gives each frame the same number of tokens looks at each alone (LLaVA-NeXT-Video), so that every frame
    may be a clip. LLaVA-OneVision's adds a token to each clip.
    """
    texts = [processor.replace_video_token({"pixel_values_videos": clips}, number) for number in range(len(clips))]
    counts = [text.count(processor.video_token) for text in texts]
    if all(count % len(clip) == 0 for count, clip in zip(counts, clips, strict=True)):
        return torch.cat(clips).unsqueeze(1)
    lengths = sorted({len(clip) for clip in clips})
    if len(lengths) > 1:
        raise UnsupportedModelError(
            f"the model of this {type(processor).__name__} takes clips of one length in a batch, these have "
            f"{', '.join(map(str, lengths))} frames: set video_num_frames, or a batch size of 1"
        )
    return torch.stack(clips)


def time_inputs(processor: Any, seconds_per_frame: Sequence[float | None]) -> dict[str, Tensor]:
    """What a model takes about time besides its prompt: Qwen2.5-VL's seconds per temporal patch, (clips,).

    Raises:
        ValueError: the model needs the time between frames and a clip does not have it.
    """
    name = next((name for name in _TIMES if name in processor.model_input_names), None)
    if name is None:
        return {}
    known = [seconds for seconds in seconds_per_frame if seconds is not None]
    if len(known) < len(seconds_per_frame):
        raise ValueError("this model needs the seconds between frames, which these clips lack: prepare them again")
    if name == _TIMES[1]:
        known = list(map(grid_seconds, known))
    return {name: torch.tensor(known) * processor.video_processor.temporal_patch_size}


def grid_seconds(seconds_per_frame: float) -> float:
    """The seconds between frames as models that hear videos are given them.

    A sound is put between frames where a chunk of seconds ends, once in 64 bits for the tokens and once in 32 for their
    positions: a frame at such an end lies a little behind it in both.
    """
    return seconds_per_frame * (1 + 1e-6)


def accepted_inputs(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `inputs` that the model's forward names; others would reach its layers as unknown options."""
    names = _parameters_of(type(model).forward)
    return {name: value for name, value in inputs.items() if name in names}


def encode_vision(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """What vision tower and projector of a transformers model make of a batch: its `mm_encoder_outputs`.

    With it, and with `inputs` without the entries named `pixel_…`, the model's forward gives bit for bit what the
    pixels give. Build a new one for each call: the model writes into it.
    """
    base, there, found = model.base_model, modalities_of(inputs), {}
    if "image" in there:
        found["image"] = _encode(base.get_image_features, inputs)
    if "video" in there:
        found["video"] = _encode(base.get_video_features, inputs)
    return found


def takes_sounds_alone(model: Any) -> bool:
    """Whether what hears in a transformers model can be run without the rest of it."""
    return "get_audio_features" in dir(model.base_model)


def encode_sounds(model: Any, inputs: Mapping[str, Tensor]) -> Any:
    """What a transformers model that `takes_sounds_alone` makes of the sounds of a batch."""
    return _encode(model.base_model.get_audio_features, inputs)


def modalities_of(inputs: Mapping[str, Any]) -> frozenset[str]:
    """What a batch has for a model's towers: `image`, `video`, `audio`. Some models take videos as images."""
    return frozenset(modality for name, modality in _MODALITIES.items() if inputs.get(name) is not None)


def _encode(encode: Any, inputs: Mapping[str, Any]) -> Any:
    names = _parameters_of(encode.__func__)
    return encode(**{name: value for name, value in inputs.items() if name in names}, return_dict=True)


def part_of(name: str, model: Any) -> str:
    """The part of a transformers model that a parameter belongs to.

    One of `language_model`, `vision_tower` (and what hears, as in LLaMA-Factory), `projector` (whatever lies between
    these two), `lm_head`.
    """
    if name.startswith(prefix_of(model, model.get_decoder())):
        return "language_model"
    for tower in map(partial(prefix_of, model), towers_of(model)):
        if name.startswith(tower):
            return "projector" if _MERGERS_IN_TOWER.match(name, len(tower)) else "vision_tower"
    return "projector" if name.startswith(prefix_of(model, model.base_model)) else "lm_head"


def vision_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All weights of a transformers model between pixels or sounds and the language model, by name."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if part_of(name, model) in ("vision_tower", "projector"):
            yield name, tensor


def prefix_of(model: nn.Module, module: nn.Module) -> str:
    """What the names of the parameters of `module` begin with in `model`."""
    name = next(name for name, candidate in model.named_modules() if candidate is module)
    return f"{name}." if name else ""


def settings_of(part: Any) -> frozenset[str]:
    """The names of the settings of a processor of videos or images."""
    return frozenset(part.valid_kwargs.__annotations__)


@functools.cache
def _parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
