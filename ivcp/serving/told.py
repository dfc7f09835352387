"""What is said of one clip: a class, several at once, a class of each head, or a number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from ivcp.records.answers import ClassScore, HeadAnswer

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.stages.loaded_model import LoadedModel


class Told(TypedDict, total=False):
    """Fields of an answer, and of a timeline's window."""

    label: int | None
    label_name: str | None
    confidence: float | None
    unsure: bool | None
    top: tuple[ClassScore, ...]
    labels: tuple[ClassScore, ...]
    heads: dict[str, HeadAnswer]
    value: float


_NOT_ONE_CLASS: Told = {"label": None, "label_name": None, "confidence": None, "top": ()}


def told(model: LoadedModel, logits: Tensor, *, top_k: int) -> Told:
    """What a model says of a clip of which `logits` are (outputs,); as many classes as `top_k` are named."""
    labels, shares = model.labels, model.probabilities(logits).tolist()
    match labels.kind:
        case "classes":
            scores = _scores(shares, labels.label_names, range(len(shares)))
            shown = tuple(score for score in scores if score.confidence >= model.shown_from[score.label])
            return {**_NOT_ONE_CLASS, "top": scores[:top_k], "labels": shown}
        case "heads":
            heads: dict[str, HeadAnswer] = {}
            for head, outputs in zip(labels.heads, labels.outputs_of_heads, strict=True):
                scores = _scores(shares[outputs], head.label_names, range(head.num_classes))[:top_k]
                heads[head.name] = HeadAnswer(**dict(scores[0]), top=scores)
            return {**_NOT_ONE_CLASS, "heads": heads}
        case "value":
            assert labels.scale is not None, "a training sets it"
            return {**_NOT_ONE_CLASS, "value": labels.scale.restored(float(logits[0]))}
    top = _scores(shares, labels.label_names, range(len(shares)))[:top_k]
    best = top[0]
    return {
        "label": best.label,
        "label_name": best.label_name,
        "confidence": best.confidence,
        "unsure": model.is_unsure(best.confidence),
        "top": top,
    }


def _scores(shares: Sequence[float], names: Sequence[str], labels: Iterable[int]) -> tuple[ClassScore, ...]:
    """The best first."""
    order: list[Any] = sorted(labels, key=lambda label: -shares[label])
    return tuple(ClassScore(label=i, label_name=names[i], confidence=shares[i]) for i in order)
