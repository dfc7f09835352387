"""The registered champion on the clips that a new model was measured on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ivcp import storage
from ivcp.data.prompts import render_conversation
from ivcp.data.seen_clips import SEEN_CLIPS_FILE
from ivcp.inference.finite import NonFiniteError
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import Message
from ivcp.records.comparison import Comparison, Flips, LeftOut
from ivcp.settings import EvaluationConfig, ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.tracking import Champion

log = logging.getLogger(__name__)
_PROBE = (Message(role="user", content="question"), Message(role="assistant", content="answer"))


@dataclass(frozen=True)
class OnSameClips:
    """One metric of two models on the clips that neither has seen."""

    champion: float
    new: float
    num_clips: int
    left_out: LeftOut
    """What the champion has seen of the clips that the new model was measured on."""
    flips: Flips | None = None
    """Clip by clip; null where the champion's answers are not known."""


@dataclass(frozen=True)
class Found:
    """What came of a comparison."""

    champion: Champion
    how: Literal["recorded", "evaluated", "not_comparable"]
    both: OnSameClips | None
    """Null when not comparable."""
    detail: str

    def described(self) -> dict[str, Any]:
        """The fields of a `Comparison`."""
        named = {"name": self.champion.name, "version": self.champion.version, "how": self.how, "detail": self.detail}
        return named | ({"num_clips": self.both.num_clips, "left_out": self.both.left_out} if self.both else {})


def compare_with_champion(
    champion: Champion,
    *,
    model: LoadedModel,
    recorded: OnSameClips | None,
    machine: ModelConfig,
    device: str,
    why_unfit: Callable[[LoadedModel], str | None],
    measure_both: Callable[[LoadedModel], OnSameClips | None],
) -> Found:
    """The champion beside `model`, the new one: as `recorded`, or else measured by `measure_both`.

    `why_unfit` says what keeps the champion from reading the clips, which were prepared for the new model. A champion
    of which it is not known what it has seen may remember the test clips, and decides nothing.
    """
    if recorded is not None:
        return Found(champion, "recorded", recorded, "recorded on the same clips")
    try:
        loaded = load_directory(storage.local_path(champion.model_dir), machine=machine, device=device)
    except (FileNotFoundError, ModelFilesError) as error:
        return _not_comparable(champion, f"it cannot be loaded: {error}")
    reason = why_unfit(loaded) or why_other_inputs(loaded, model) or _why_not_trusted(loaded)
    if reason is not None:
        return _not_comparable(champion, reason)
    log.info("measuring champion %s version %d on the present test split", champion.name, champion.version)
    try:
        both = measure_both(loaded)
    except NonFiniteError as error:
        return _not_comparable(champion, str(error))
    if both is None:
        return _not_comparable(champion, "it has seen all clips of the test split")
    left_out = f"; left out are {both.left_out.words} that the champion has seen" if both.left_out.total else ""
    return Found(champion, "evaluated", both, f"measured now on the same {both.num_clips} clips{left_out}")


def why_other_inputs(model: LoadedModel, other: LoadedModel) -> str | None:
    """What makes inputs prepared for one model unfit for the other; null when nothing does."""
    ours, theirs = (loaded.processor.processor for loaded in (model, other))
    if type(ours) is not type(theirs):
        return f"its processor is a {type(ours).__name__}, the new model's a {type(theirs).__name__}"
    if ours.tokenizer.get_vocab() != theirs.tokenizer.get_vocab():
        return "its tokenizer is not the new model's"
    if _is_set_otherwise(ours, theirs, "video_processor"):
        return "its video processor is not set like the new model's"
    return None


def why_other_words(model: LoadedModel, other: LoadedModel) -> str | None:
    """What else makes conversations, images and sounds prepared for one model unfit for the other; null when nothing
    does."""
    ours, theirs = (loaded.processor.processor for loaded in (model, other))
    if render_conversation(ours, _PROBE) != render_conversation(theirs, _PROBE):
        return "its chat template is not the new model's"
    for part in ("image_processor", "feature_extractor"):
        if _is_set_otherwise(ours, theirs, part):
            return f"its {part.replace('_', ' ')} is not set like the new model's"
    return None


def _is_set_otherwise(processor: Any, other: Any, part: str) -> bool:
    """Whether parts of processors of one class differ; not where the class has none of that name."""
    has_it = part in processor.get_attributes()
    return has_it and getattr(processor, part).to_dict() != getattr(other, part).to_dict()


def why_alone(settings: EvaluationConfig, champion: Comparison | None, *, model_alias: str, decides: str) -> str:
    """Why no champion counts; `decides` is what does: "only the minimum decides"."""
    if not settings.compare_with_champion:
        return "not compared with a champion: compare_with_champion is false"
    if champion is None:
        return f"no registered model has the alias {model_alias} yet: {decides}"
    return f"champion {champion.name} version {champion.version} is not comparable: {champion.detail}; {decides}"


def against(champion: Comparison, theirs: str, settings: EvaluationConfig, *, passes: bool) -> str:
    """The reason that a comparison is for the gate; `theirs` is the champion's figure."""
    return (
        f"{'not worse' if passes else 'worse'} than champion {champion.name} version {champion.version} with {theirs} "
        f"({champion.detail}), champion_tolerance {settings.champion_tolerance:.3f}"
    )


def reaches(value: float, bound: float, *, less_is_better: bool = False) -> bool:
    """Whether a figure is as good as a bound, and both are numbers: nothing follows from a comparison with NaN."""
    if not (math.isfinite(value) and math.isfinite(bound)):
        return False
    return value <= bound if less_is_better else value >= bound


def _why_not_trusted(champion: LoadedModel) -> str | None:
    if champion.seen.is_complete:
        return None
    return (
        f"it is not known what it has seen (an earlier version wrote it or a model that it comes from, without "
        f"{SEEN_CLIPS_FILE}), so that its figure may be too high"
    )


def _not_comparable(champion: Champion, detail: str) -> Found:
    return Found(champion, "not_comparable", None, detail)
