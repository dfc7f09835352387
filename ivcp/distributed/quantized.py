"""Which ways of sharding can hold quantized weights."""

from __future__ import annotations

from ivcp.distributed.deepspeed_files import zero_stage
from ivcp.settings import ConfigError, RunConfig


def check_quantized_sharding(config: RunConfig) -> None:
    """Checks that quantized weights are not to be sharded in a way that cannot hold them.

    ZeRO-3 makes a shard of a weight before bitsandbytes has quantized it; FSDP2 makes plain tensors of 8-bit weights,
    and leaves 4-bit ones as they are, in every process.

    Raises:
        ConfigError: they are.
    """
    bits, train = config.method.quantization_bit, config.train
    if bits is None:
        return
    asked = f"quantization_bit = {bits} with"
    if train.deepspeed and zero_stage(train.deepspeed) == 3:
        raise ConfigError(
            f"{asked} deepspeed = {train.deepspeed}: ZeRO-3 cannot shard quantized weights; set deepspeed: z2, where "
            "each process holds them all (they are small), or remove quantization_bit"
        )
    if train.fsdp and bits == 8:
        raise ConfigError(
            f"{asked} fsdp = {train.fsdp}: FSDP2 cannot shard 8-bit weights; set quantization_bit: 4 or deepspeed: z2, "
            "where each process holds them all, or remove quantization_bit"
        )
