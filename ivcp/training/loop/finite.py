"""Losses and gradients that are not finite: they stop the run, before they reach a checkpoint.

transformers hides them from the log (`logging_nan_inf_filter`): a run whose weights are NaN logs losses of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from ivcp.data.prepared.sample import Sample
from ivcp.distributed.processes import any_process, gather_values, on_owner
from ivcp.inference.finite import NonFiniteError, named, non_finite_names, non_finite_rows
from ivcp.inference.loop import Samples
from ivcp.stages.protocol import Collate
from ivcp.training.checkpoints.folder import whole_checkpoints

CLIPS = "clips"
"""Entry of a training batch: the names of its samples."""
_MOST_SKIPPED = 32
"""Steps that a loss scaler may skip one after the other. It halves its scale each time, from 65,536: behind so many, no
scale helps."""
_WHAT_TO_DO = "Lower learning_rate; set bf16 in place of fp16; where it is always the same clips, look at these;"


@dataclass(frozen=True)
class NamedBatches:
    """Collates, and adds the names of the samples."""

    collate: Collate

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch, with a list of names as `CLIPS`."""
        return {**self.collate(samples), CLIPS: [name_of(sample) for sample in samples]}


def name_of(sample: Sample) -> str:
    """A sample as people find it: its row and its video."""
    return f"{sample.sample_id} ({sample.source})"


@dataclass(frozen=True)
class _Found:
    """What one process saw in a step."""

    losses: tuple[float, ...]
    clips: tuple[str, ...]
    """Of batches with a loss that is not finite, or of all where only the gradient is not."""
    norm: float | None


class FiniteSteps:
    """The losses and the gradient's norm of each optimizer step, which stay on the device until the step is checked.

    The check waits for the device once in each optimizer step. transformers' own filter, which is off, waited twice in
    each forward pass.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._batches: list[tuple[Tensor, list[str]]] = []
        self._skipped = 0

    def saw(self, loss: Tensor, clips: list[str]) -> None:
        """Takes the loss of a batch, a scalar."""
        self._batches.append((loss, clips))

    def check(self, norm: Tensor | float | None, *, step: int, skips_overflow: bool) -> None:
        """Checks what was seen since the last step, and the norm of the gradient; all processes call this.

        `skips_overflow` is for a loss scaler, which leaves out steps whose gradient overflows.

        Raises:
            NonFiniteError: in all processes, where one of them saw a number that is not finite.
        """
        batches, self._batches = self._batches, []
        losses, of_gradient = _on_cpu([loss for loss, _ in batches], norm)
        # DeepSpeed says -1 for a norm that is not finite.
        is_overflow = of_gradient is not None and not (math.isfinite(of_gradient) and of_gradient >= 0)
        self._skipped = self._skipped + 1 if is_overflow and skips_overflow else 0
        is_wrong = is_overflow and (not skips_overflow or self._skipped >= _MOST_SKIPPED)
        wrong = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
        if not any_process(bool(wrong) or is_wrong):
            return
        concerned = wrong or (range(len(batches)) if is_wrong else ())
        found = _Found(
            losses=tuple(losses[number] for number in wrong),
            clips=tuple(clip for number in concerned for clip in batches[number][1]),
            norm=of_gradient if is_wrong else None,
        )
        last = last_good_checkpoint(self._output_dir)
        raise NonFiniteError(_explain(gather_values(found), step=step, last=last, num_skipped=self._skipped))


def check_outputs(outputs: Any, samples: Samples, *, step: int, output_dir: Path) -> None:
    """Checks what a validation computed: arrays of other shapes than (len(samples), …) are left alone.

    Raises:
        NonFiniteError: names the samples whose numbers are not finite.
    """
    if not isinstance(outputs, np.ndarray) or len(outputs) != len(samples):
        return
    wrong = non_finite_rows(torch.from_numpy(outputs))
    if wrong:
        clips = named(name_of(samples[row]) for row in wrong)
        raise NonFiniteError(
            f"validation behind step {step}: the outputs of {len(wrong)} of {len(outputs)} clips are not finite "
            f"({clips}), and the training ends here. {_WHAT_TO_DO} {_describe(last_good_checkpoint(output_dir))}"
        )


def check_metrics(metrics: Mapping[str, float], *, step: int, output_dir: Path) -> None:
    """Checks a validation's metrics: a NaN compares with nothing, so that it would choose a checkpoint at random.

    Raises:
        NonFiniteError: names those that are not finite.
    """
    wrong = [f"{name} {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise NonFiniteError(
            f"validation behind step {step} has {named(wrong)}, and the training ends here. {_WHAT_TO_DO} "
            f"{_describe(last_good_checkpoint(output_dir))}"
        )


def check_weights(weights: Mapping[str, Tensor], *, step: int, output_dir: Path) -> None:
    """Checks trained weights before they are written; the owner rank has them, and all processes call this.

    Raises:
        NonFiniteError: in all processes, where one is not finite.
    """
    wrong = on_owner(lambda: non_finite_names(weights))
    if wrong:
        raise NonFiniteError(
            f"step {step} left weights that are not finite ({named(wrong)}): they are not written, and the training "
            f"ends here. {_WHAT_TO_DO} {_describe(last_good_checkpoint(output_dir))}"
        )


def last_good_checkpoint(output_dir: Path) -> Path | None:
    """The last complete checkpoint whose weights are finite; null where there is none.

    Its weights are read: earlier versions wrote what a diverged run had.
    """
    return next((path for path in reversed(whole_checkpoints(output_dir)) if _has_finite_weights(path)), None)


def _describe(checkpoint: Path | None) -> str:
    """A sentence on where a run that diverged may go on from."""
    if checkpoint is None:
        return "there is no checkpoint from before: set overwrite_output_dir: true to begin anew"
    return (
        f"the last good checkpoint is {checkpoint}: begin from its weights with adapter_name_or_path: {checkpoint} in "
        "another output_dir, or go on in this one with resume_from_checkpoint: true, which keeps the learning rate "
        "that the run was started with"
    )


def _explain(found: Sequence[_Found], *, step: int, last: Path | None, num_skipped: int) -> str:
    losses = [loss for each in found for loss in each.losses]
    if losses:
        what = f"a loss of {losses[0]}"
        # Where a loss is wrong, so is the gradient in all processes: only the batches of that loss are of interest.
        clips = [clip for each in found if each.losses for clip in each.clips]
    else:
        norm = next(each.norm for each in found if each.norm is not None)
        what = "a gradient that is not finite" if norm < 0 else f"a gradient norm of {norm}"
        clips = [clip for each in found for clip in each.clips]
    skipped = f" ({num_skipped} steps in a row were left out, as fp16 does)" if num_skipped >= _MOST_SKIPPED else ""
    return (
        f"step {step} has {what}{skipped}, and the training ends here. Its clips: {named(clips)}. {_WHAT_TO_DO} "
        f"{_describe(last)}"
    )


def _on_cpu(losses: Sequence[Tensor], norm: Tensor | float | None) -> tuple[list[float], float | None]:
    """The losses and the norm as numbers, with one copy from the device for all of them."""
    if not isinstance(norm, Tensor):
        return (torch.stack([loss.float() for loss in losses]).tolist() if losses else []), norm
    local = norm.to_local() if isinstance(norm, DTensor) else norm  # each process looks at its part
    *numbers, of_gradient = torch.stack([tensor.float().to(local.device) for tensor in (*losses, local)]).tolist()
    return numbers, of_gradient


def _has_finite_weights(checkpoint: Path) -> bool:
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                if non_finite_names({name: opened.get_tensor(name)}):
                    return False
    return True
