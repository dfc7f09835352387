"""Every family in two processes on CPUs, however it is trained, sharded and computed, against one process.

    python -m tests.distributed_matrix --output docs/distributed_matrix.md
    python -m tests.distributed_matrix --families qwen2_vl --methods lora --shardings z3

A cell is a family, a way of training, a sharding and a precision. It trains four steps with a validation and a
checkpoint after every second one, and must give the losses, gradient norms and logits of one process that takes the
same clips, in the run and in the directory that it leaves. FSDP2 runs under the mixed-precision policy that accelerate
sets on GPUs, and DeepSpeed casts weights and inputs as it does there. `--folder` keeps what was measured; a second
start goes on there.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

SHARDINGS: dict[str, dict[str, str]] = {
    "DDP": {},
    "z2": {"deepspeed": "z2"},
    "z3": {"deepspeed": "z3"},
    "FSDP2": {"fsdp": "full_shard"},
}
ALONE = "one process"
_MARK = "<!-- written by tests.distributed_matrix -->"
_OPEN = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"finetuning_type": "lora", "learning_rate": 3e-3},
    "full": {"finetuning_type": "full", "learning_rate": 1e-3},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 1e-3},
    "lora, open tower": {"finetuning_type": "lora", "learning_rate": 3e-3, **_OPEN},
    "full, open tower": {"finetuning_type": "full", "learning_rate": 1e-3, **_OPEN},
}
PRECISIONS = ("float32", "bf16")
_LONGEST_CELL_SECONDS = 300
TOLERANCES = {
    "float32": {"loss": 1e-5, "grad_norm": 1e-4, "logits": 1e-4},
    "bf16": {"loss": 0.05, "grad_norm": 0.1, "logits": 0.15},
}
"""Largest distance from one process: of training and validation losses, of gradient norms relative to the largest one,
and of logits. Two bfloat16 trainings round differently: autocast keeps weights and the residual stream in float32,
FSDP2 and DeepSpeed compute all of it in bfloat16."""
MIXTURE_TOLERANCES = {
    "float32": {"loss": 1e-4, "grad_norm": 1e-3, "logits": 1e-3},
    "bf16": {"loss": 0.3, "grad_norm": math.inf, "logits": 1.0},
}
"""Of mixtures of experts: where a rounding sends a token to another expert, it is no small difference any more."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    family: str
    method: str
    sharding: str
    """One of `SHARDINGS`, or `ALONE`."""
    precision: str

    @property
    def is_alone(self) -> bool:
        return self.sharding == ALONE

    def settings(self) -> dict[str, Any]:
        sharding = {"gradient_accumulation_steps": 2} if self.is_alone else SHARDINGS[self.sharding]
        precision = {"bf16": True} if self.precision == "bf16" else {}
        return {"per_device_train_batch_size": 2, **METHODS[self.method], **precision, **sharding}

    @property
    def name(self) -> str:
        return "-".join(asdict(self).values()).replace(", ", "_").replace(" ", "_")


def cells_of(family: str, methods: Iterable[str], precisions: Iterable[str], shardings: Iterable[str]) -> list[Cell]:
    return [Cell(family, m, s, p) for m in methods for p in precisions for s in shardings]


# In the processes


def train_cells(folder: Path, todo: Path) -> None:
    """Trains cells one after the other; ends at the first that fails, since the processes may be in disorder then."""
    import torch

    from ivcp.distributed.processes import joined_processes
    from ivcp.distributed.rank import world_size
    from ivcp.settings import TrainConfig
    from tests import fsdp_on_cpu

    torch.set_num_threads(1)
    fsdp_on_cpu.allow()
    cells = [Cell(**cell) for cell in json.loads(todo.read_text())]
    with joined_processes(TrainConfig(deepspeed="z2") if world_size() > 1 else TrainConfig()):
        for cell in cells:
            if not _train_cell(folder, cell):
                sys.stdout.flush()
                os._exit(1)


def _train_cell(folder: Path, cell: Cell) -> bool:
    from ivcp.distributed.rank import is_owner
    from ivcp.records import PreparedIndex
    from ivcp.settings import ConfigError
    from tests.integration.training.training_processes import train_once
    from tests.integration.training_data import training_settings

    data = folder / cell.family
    result = folder / f"{cell.name}.json"
    settings = training_settings(data, folder / "runs" / cell.name, **cell.settings())
    began = time.monotonic()
    try:
        seen = train_once(settings, PreparedIndex.read(data / "index.json"))
        seen["directory_logits"] = _directory_logits(data, folder / "runs" / cell.name)
    except ConfigError as error:
        seen = {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 (what a cell comes to)
        seen = {"crashed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    gc.collect()
    if is_owner() or "crashed" in seen:
        result.write_text(json.dumps(seen | {"seconds": time.monotonic() - began}))
    return "crashed" not in seen


def _directory_logits(data: Path, directory: Path) -> Any:
    from ivcp.data.prepared.reader import PreparedSamples
    from ivcp.distributed.processes import on_owner
    from ivcp.records import PreparedIndex
    from ivcp.stages.directory import load_directory

    clips = PreparedSamples(PreparedIndex.read(data / "index.json"), "val")
    return on_owner(lambda: load_directory(directory).outputs([clips[n] for n in range(len(clips))]).float().tolist())


# What starts them


def run_cells(folder: Path, cells: Sequence[Cell], *, processes: int) -> None:
    """Trains cells in processes of their own; those that are left after a failure in new ones."""
    from tests.integration.torchrun import processes_environment, torchrun_command

    left = [cell for cell in cells if not (folder / f"{cell.name}.json").exists()]
    while left:
        todo = folder / "todo.json"
        todo.write_text(json.dumps([asdict(cell) for cell in left]))
        start = [sys.executable] if processes == 1 else torchrun_command(processes)
        command = [*start, "-m", "tests.distributed_matrix", "--train", str(folder), str(todo)]
        with (
            (folder / "log.txt").open("w") as log,
            subprocess.Popen(
                command,
                env=processes_environment() | {"DS_ACCELERATOR": "cpu"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as process,
        ):
            _watch(process, folder, left)
        before, left = left, [cell for cell in left if not (folder / f"{cell.name}.json").exists()]
        if len(left) == len(before):
            tail = (folder / "log.txt").read_text()[-2000:]
            (folder / f"{left[0].name}.json").write_text(json.dumps({"crashed": "no result", "traceback": tail}))
            left = left[1:]


def _watch(process: subprocess.Popen[bytes], folder: Path, cells: Sequence[Cell]) -> None:
    """Waits for the processes, and ends them when a cell takes too long."""
    done, since = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.5)
        now_done = sum((folder / f"{cell.name}.json").exists() for cell in cells)
        if now_done > done:
            done, since = now_done, time.monotonic()
        if time.monotonic() - since > _LONGEST_CELL_SECONDS:
            os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Verdict:
    """What a cell came to: one of refused, crashed, or distances from one process."""

    refused: str | None = None
    crashed: str | None = None
    loss: float = 0.0
    grad_norm: float = 0.0
    logits: float = 0.0

    def is_green(self, cell: Cell) -> bool:
        limits = (MIXTURE_TOLERANCES if cell.family.endswith("_moe") else TOLERANCES)[cell.precision]
        is_near = all(getattr(self, name) <= limit for name, limit in limits.items())  # not where one is nan
        return self.refused is not None or (self.crashed is None and is_near)

    def __str__(self) -> str:
        if self.refused or self.crashed:
            return f"refused: {self.refused}" if self.refused else f"crashed: {self.crashed}"
        return f"{self.loss:.0e} / {self.logits:.0e}"


def verdict(folder: Path, cell: Cell) -> Verdict:
    """A cell that was trained, compared with one process."""
    seen = json.loads((folder / f"{cell.name}.json").read_text())
    if "refused" in seen or "crashed" in seen:
        return Verdict(refused=seen.get("refused"), crashed=seen.get("crashed"))
    alone = json.loads((folder / f"{replace(cell, sharding=ALONE).name}.json").read_text())
    if "crashed" in alone:
        return Verdict(crashed=f"one process: {alone['crashed']}")
    norms = np.array(_column(alone, "grad_norm"))
    return Verdict(
        loss=max(_distance(_column(seen, key), _column(alone, key)) for key in ("loss", "eval_loss")),
        grad_norm=_distance(_column(seen, "grad_norm"), norms) / float(norms.max()),
        logits=max(_distance(seen[key], alone["logits"]) for key in ("logits", "directory_logits")),
    )


def _column(seen: dict[str, Any], key: str) -> list[float]:
    return [row[key] for row in seen["rows"] if key in row]


def _distance(got: Any, expected: Any) -> float:
    return float(np.abs(np.array(got) - np.array(expected)).max())


def run_matrix(
    folder: Path, families: Sequence[str], methods: Sequence[str], precisions: Sequence[str], shardings: Sequence[str]
) -> dict[Cell, Verdict]:
    """Trains all cells that `folder` does not hold yet, and compares them."""
    from tests.integration.training_data import write_training_data

    found: dict[Cell, Verdict] = {}
    for family in families:
        if not (folder / family / "index.json").exists():
            (folder / family).mkdir(parents=True, exist_ok=True)
            write_training_data(folder / family, family)
        run_cells(folder, cells_of(family, methods, precisions, [ALONE]), processes=1)
        cells = cells_of(family, methods, precisions, shardings)
        run_cells(folder, cells, processes=2)
        for cell in cells:
            found[cell] = verdict(folder, cell)
            log.info("%s: %s", cell.name, found[cell])
    return found


def as_table(found: dict[Cell, Verdict]) -> str:
    """Markdown: a row for each family, method and precision."""
    shardings = list(dict.fromkeys(cell.sharding for cell in found))
    lines = ["| family | trains | precision | " + " | ".join(shardings) + " |", "|---" * (3 + len(shardings)) + "|"]
    for cell in found:
        if cell.sharding != shardings[0]:
            continue
        row = [(each, found.get(each)) for each in (replace(cell, sharding=sharding) for sharding in shardings)]
        told = ["" if seen is None else _told(seen, each) for each, seen in row]
        lines.append(f"| `{cell.family}` | {cell.method} | {cell.precision} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def _told(seen: Verdict, cell: Cell) -> str:
    return str(seen) if seen.is_green(cell) else f"**{seen}**"


def main() -> None:
    from tests.tiny_families import FAMILIES

    words = argparse.ArgumentParser()
    words.add_argument("--families", nargs="*", default=list(FAMILIES))
    words.add_argument("--methods", nargs="*", default=list(METHODS))
    words.add_argument("--precisions", nargs="*", default=list(PRECISIONS))
    words.add_argument("--shardings", nargs="*", default=list(SHARDINGS))
    words.add_argument("--folder", type=Path)
    words.add_argument("--output", type=Path)
    words.add_argument("--train", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.train:
        train_cells(*given.train)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = given.folder or Path(tempfile.mkdtemp())
    found = run_matrix(folder, given.families, given.methods, given.precisions, given.shardings)
    if given.output:
        text = given.output.read_text()
        given.output.write_text(text[: text.index(_MARK) + len(_MARK)] + "\n\n" + as_table(found))


if __name__ == "__main__":
    main()
