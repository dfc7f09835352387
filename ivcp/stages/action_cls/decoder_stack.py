"""Trains many action decoders of one shape at once, on states that were computed before.

The decoders' parameters are stacked and their forward passes vectorised (`torch.func.stack_module_state` and `vmap`),
so that a step of all of them is a few batched matrix products: about the time of one on a GPU.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from ivcp.data.prepared.batches import PlannedBatches
from ivcp.stages.action_cls.decoder import ActionDecoder

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of logits, (batch, num_classes), and labels, (batch,)."""
_CLIPS_PER_EVALUATION = 4096


@dataclass(frozen=True)
class LabelledStates:
    """States at the action token and what they are to be classified as."""

    states: Tensor
    """(clips, hidden_size)."""
    labels: Tensor
    """(clips,)."""


@dataclass(frozen=True)
class StackResult:
    """What each decoder reached, in order."""

    train_losses: list[float]
    """Mean over the last epoch's batches."""
    val_losses: list[float]
    """Cross-entropy."""
    val_top1_accuracies: list[float]
    parameters: dict[str, Tensor]
    """Stacked: each has the decoders as its first dimension."""

    def decoder(self, position: int) -> dict[str, Tensor]:
        """The state dictionary of one decoder."""
        return {name: tensor[position].detach().clone() for name, tensor in self.parameters.items()}


def train_stack(
    decoders: Sequence[ActionDecoder],
    *,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    train: LabelledStates,
    val: LabelledStates,
    batches: PlannedBatches,
    num_epochs: int,
    loss: Loss,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> StackResult:
    """Trains decoders of one shape with a learning rate and weight decay each, on the same batches.

    AdamW, with a learning rate that falls to 0 along a cosine. The decoders are left as they were.
    """
    stacked, buffers = stack_module_state(list(decoders))
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in stacked.items()}
    skeleton = copy.deepcopy(decoders[0]).to("meta")

    def one_loss(parameters: dict[str, Tensor], states: Tensor, labels: Tensor) -> Tensor:
        return loss(functional_call(skeleton, (parameters, buffers), (states,)).float(), labels)

    all_losses = vmap(one_loss, in_dims=(0, None, None), randomness="different")
    optimizer = _StackedAdamW(parameters, learning_rates, weight_decays, betas=betas, epsilon=epsilon)
    num_steps, step = num_epochs * len(batches), 0
    train_losses = torch.zeros(len(decoders), device=train.states.device)
    skeleton.train()
    for epoch in range(num_epochs):
        batches.set_epoch(epoch)
        train_losses.zero_()
        for batch in batches:
            positions = torch.tensor(batch, device=train.states.device)
            losses = all_losses(parameters, train.states[positions], train.labels[positions])
            gradients = torch.autograd.grad(losses.sum(), list(parameters.values()))
            optimizer.step(gradients, share_of_rate=0.5 * (1 + math.cos(math.pi * step / num_steps)))
            train_losses += losses.detach() / len(batches)
            step += 1
    skeleton.eval()
    val_losses, accuracies = _measure(
        vmap(lambda parameters, states: functional_call(skeleton, (parameters, buffers), (states,)), in_dims=(0, None)),
        parameters,
        val,
    )
    return StackResult(train_losses.tolist(), val_losses.tolist(), accuracies.tolist(), parameters)


class _StackedAdamW:
    """AdamW (arXiv:1711.05101) with a learning rate and weight decay for each entry of the first dimension.

    torch's optimizers take one of each for a whole tensor. Biases do not decay.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
        *,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        self._parameters = list(parameters.values())
        self._rates = [_column(learning_rates, tensor) for tensor in self._parameters]
        self._decays = [_column(weight_decays, tensor) * (tensor.dim() > 2) for tensor in self._parameters]
        self._means = [torch.zeros_like(tensor) for tensor in self._parameters]
        self._squares = [torch.zeros_like(tensor) for tensor in self._parameters]
        self._betas, self._epsilon, self._num_steps = betas, epsilon, 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], *, share_of_rate: float) -> None:
        self._num_steps += 1
        first, second = self._betas
        corrections = 1 - first**self._num_steps, math.sqrt(1 - second**self._num_steps)
        for position, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            rate = self._rates[position] * share_of_rate
            mean = self._means[position].lerp_(gradient, 1 - first)
            square = self._squares[position].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            parameter.mul_(1 - rate * self._decays[position])
            parameter.sub_(rate / corrections[0] * mean / (square.sqrt() / corrections[1] + self._epsilon))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """The values as (decoders, 1, …), to multiply with a stacked tensor."""
    return torch.tensor(values, device=like.device).view(-1, *([1] * (like.dim() - 1)))


@torch.no_grad()
def _measure(
    logits_of: Callable[[dict[str, Tensor], Tensor], Tensor], parameters: dict[str, Tensor], data: LabelledStates
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and top-1 accuracy of each decoder, (decoders,)."""
    num_decoders = len(next(iter(parameters.values())))
    losses = torch.zeros(num_decoders, device=data.states.device)
    hits = torch.zeros(num_decoders, device=data.states.device)
    chunks = zip(*(torch.split(tensor, _CLIPS_PER_EVALUATION) for tensor in (data.states, data.labels)), strict=True)
    for states, labels in chunks:
        logits = logits_of(parameters, states).float()
        expected = labels.expand(num_decoders, -1)
        losses += cross_entropy(logits.transpose(1, 2), expected, reduction="none").sum(dim=1)
        hits += (logits.argmax(dim=2) == expected).sum(dim=1)
    return losses / len(data.labels), hits / len(data.labels)
