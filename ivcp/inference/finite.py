"""A number that is not finite stops whatever it reaches: an accuracy of NaN logits looks like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

_MOST_NAMED = 8


class NonFiniteError(RuntimeError):
    """NaN or infinity where a number belongs; the message says of which clips, and what to do."""


def check_finite_outputs(outputs: Tensor, name_of: Callable[[int], str], *, source: str) -> None:
    """Checks what `source` computed for clips: `outputs` is (clips, …), `name_of` says what one of them is called.

    Raises:
        NonFiniteError: names the clips whose numbers are not finite.
    """
    wrong = [name_of(clip) for clip in non_finite_rows(outputs)]
    if wrong:
        raise NonFiniteError(
            f"{source}: the outputs of {len(wrong)} of {len(outputs)} clips are not finite ({named(wrong)}). Where it "
            "is all clips, the training has diverged: train again with a lower learning_rate. Where it is some, they "
            "overflow in this precision: set bf16 instead of fp16, and look at these clips"
        )


def non_finite_rows(outputs: Tensor) -> list[int]:
    """Positions in the first dimension of `outputs` that hold a NaN or an infinity."""
    is_finite = outputs.isfinite().flatten(1).all(dim=1).tolist()
    return [row for row, fine in enumerate(is_finite) if not fine]


def non_finite_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold a NaN or an infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


def named(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(dict.fromkeys(names))
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(listed[:_MOST_NAMED]) + more
