"""Layers of vision towers that compute what transformers' own compute, in less time.

The names and shapes of weights stay, so that files fit both ways.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.activations import QuickGELUActivation  # noqa: E402

_SLOPE = 1.702


class PatchConv3d(nn.Conv3d):
    """A convolution over patches that the processor has cut out already, as one matrix product.

    Its kernel covers a patch exactly; PyTorch's 3D convolution takes about three times as long for that on a CPU, and
    its bfloat16 kernel on GPUs is slower still (vLLM replaces it in the same way).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(patches, channels, *kernel_size) → (patches, out_channels, 1, 1, 1); another size is convolved."""
        if input.ndim != 5 or tuple(input.shape[2:]) != self.kernel_size or any(self.padding):
            return super().forward(input)
        return linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the GELU approximation of CLIP, with fewer passes over memory in both directions."""

    def forward(self, input: Tensor) -> Tensor:
        """Elementwise, in the shape of `input`."""
        return silu(_SLOPE * input) / _SLOPE


def replace_slow_layers(tower: nn.Module) -> None:
    """Puts the layers above in place of the tower's own; weights are kept, not copied."""
    for parent in list(tower.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.Conv3d and layer.groups == 1:
                layer.__class__ = PatchConv3d
            elif isinstance(layer, QuickGELUActivation):
                setattr(parent, name, QuickGELU())
