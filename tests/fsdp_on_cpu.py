"""FSDP2 on CPUs, which the library refuses: accelerate 1.15 silently trains there without sharding.

    python -m tests.fsdp_on_cpu my.yaml fsdp=full_shard     as ivcp.cli.train, and sharded

What the library itself does under FSDP2 (gathering, checkpoints, resuming) is then the same code as on GPUs.
"""

from typing import Any

from ivcp.cli import train
from ivcp.distributed import sharding
from ivcp.training.loop.trainer import StageTrainer


def allow() -> None:
    """Lets this process shard with FSDP2."""
    create = StageTrainer.create_accelerator_and_postprocess

    def create_sharding(self: Any) -> None:
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

        create(self)
        if self.sharding == "fsdp2" and not self.is_fsdp_enabled:
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            if self.accelerator.mixed_precision != "no":
                plugin.set_mixed_precision(self.accelerator.mixed_precision)  # as AcceleratorState does on GPUs
            self.accelerator.state.distributed_type = DistributedType.FSDP
            self.accelerator.state.fsdp_plugin = plugin
            self.is_fsdp_enabled = True

    StageTrainer.create_accelerator_and_postprocess = create_sharding
    sharding.has_devices_for_fsdp = lambda: True


if __name__ == "__main__":
    allow()
    train.main()
