"""Weights that are sharded over processes, by DeepSpeed's ZeRO-3 or by FSDP2: gathered, and written from gathered ones.

Without these two a parameter is an ordinary tensor, and these functions cost nothing. All processes call
them together, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.distributed.rank import is_owner
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.integrations import is_deepspeed_zero3_enabled  # noqa: E402


@contextmanager
def gathered(parameters: Iterable[nn.Parameter], *, writes: bool = False) -> Iterator[None]:
    """Inside, ZeRO-3's `parameters` have all their values; with `writes`, those of the owner rank are kept."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import is_zero_param

    sharded = [parameter for parameter in parameters if is_zero_param(parameter)]
    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=0 if writes else None):
        yield


@contextmanager
def loading_replicated() -> Iterator[None]:
    """Inside, transformers' `from_pretrained` gives every process all weights, also in a ZeRO-3 run."""
    from transformers.integrations import deepspeed as integration

    held = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = held


@contextmanager
def whole_shapes_compared() -> Iterator[None]:
    """Inside, transformers reads and writes the weights of experts transposed only where their layout is the other one.

    It compares them with the parameter's shape, which is empty under ZeRO-3: there all of them were transposed.
    """
    if not is_deepspeed_zero3_enabled():
        yield
        return
    from transformers.core_model_loading import Transpose

    transposed = Transpose.convert

    def convert(self: Any, input_dict: Any, source_patterns: Any, target_patterns: Any, **about: Any) -> Any:
        (weights,) = input_dict.values()
        weight = weights[0] if isinstance(weights, list) else weights
        if self.check_dims and weight.shape == full_shape(about["model"].get_parameter(about["full_layer_name"])):
            return {self.get_target_pattern(input_dict, source_patterns, target_patterns): weight}
        return transposed(self, input_dict, source_patterns, target_patterns, **about)

    Transpose.convert = convert
    try:
        yield
    finally:
        Transpose.convert = transposed


def match_sharded_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Gives what ZeRO-3 has not sharded yet the precision of what it has, `dtype`: it trains weights of one alone.

    transformers loads the backbone in shards; what is added to it is made in float32. DeepSpeed's optimizer keeps all
    of them in float32 beside.
    """
    for parameter in module.parameters():
        if "ds_id" not in vars(parameter) and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def full_shape(parameter: Tensor) -> torch.Size:
    """Shape of the gathered parameter, however small this process's shard is."""
    if is_deepspeed_zero3_enabled():
        from deepspeed.runtime.zero.partition_parameters import is_zero_param

        if is_zero_param(parameter):
            return torch.Size(parameter.ds_shape)  # type: ignore[attr-defined]
    return parameter.shape


def gather_weights(module: nn.Module, *, wanted: Callable[[str, Tensor], bool]) -> dict[str, Tensor]:
    """The `state_dict` entries that are `wanted`, gathered: on the owner rank; empty on the others.

    Where nothing is sharded, the tensors are the module's own; else copies on the CPU, one parameter at a time.
    """
    is_kept = is_owner()
    collected: dict[str, Tensor] = {}
    seen: dict[int, Tensor | None] = {}  # tied weights stay one tensor
    for name, value in module.state_dict(keep_vars=True).items():
        if not wanted(name, value):
            continue
        if id(value) not in seen:
            full = _gathered_value(value)
            seen[id(value)] = full if is_kept else None
        if (kept := seen[id(value)]) is not None:
            collected[name] = kept
    return collected


def write_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts gathered weights, by the names of `state_dict`, into a module; every process has them all.

    Raises:
        ValueError: the module has no such weight, or one of another shape.
    """
    targets = module.state_dict(keep_vars=True)
    for name, value in weights.items():
        if name not in targets:
            raise ValueError(f"the model has no weight {name}")
        shape = full_shape(targets[name])
        if shape != value.shape:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, the model's has {tuple(shape)}")
        _write(targets[name], value)


def _gathered_value(value: Any) -> Tensor:
    if _is_dtensor(value):
        # The mesh's device, which an offloaded parameter does not lie on.
        full: Tensor = value.detach().to(value.device_mesh.device_type).full_tensor().cpu()
        return full
    if isinstance(value, nn.Parameter) and is_deepspeed_zero3_enabled():
        with gathered([value]):
            return value.detach().cpu().clone()
    plain: Tensor = value.detach()
    return plain


@torch.no_grad()
def _write(target: Any, value: Tensor) -> None:
    if _is_dtensor(target):
        from torch.distributed.tensor import distribute_tensor

        on_mesh = value.to(device=target.device_mesh.device_type, dtype=target.dtype)
        target.to_local().copy_(distribute_tensor(on_mesh, target.device_mesh, target.placements).to_local())
        return
    with gathered([target] if isinstance(target, nn.Parameter) else [], writes=True):
        target.copy_(value)


def _is_dtensor(value: Any) -> bool:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)
