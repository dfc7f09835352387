"""Top-1 accuracy on the sample set's test split of each way of training, over several seeds, and what it took.

    ivcp sample-data && ivcp tiny-model && python benchmarks/sample_set.py [--seeds 3] [--dir DIR] [--processors]

All ways read the same prepared clips and start from the same base model; settings are those of
`pipelines/configs/demo.yaml` but for what is named below. The seed covers initialisation and order of data, not the
split. With `--processors`, `lora` alone is trained again as on other processors: with the instructions that these
have, and with one thread. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.records import PreparedIndex
from ivcp.settings import load_config
from ivcp.steps import prepare
from ivcp.training.train import train_model

DEMO = Path(__file__).parent.parent / "pipelines" / "configs" / "demo.yaml"
FULL = {"finetuning_type": "full", "learning_rate": 1e-3, "weight_decay": 0.05}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": FULL,
    "full, tower trains": FULL | {"freeze_vision_tower": False, "freeze_multi_modal_projector": False},
    "freeze, last layer": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "head sweep": {"finetuning_type": "freeze", "freeze_trainable_layers": 0, "head_sweep": True},
}
PROCESSORS: dict[str, dict[str, str]] = {
    "this processor": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Environment variables that keep torch, oneDNN and MKL from what a processor has beyond."""
COMMON = {"report_to": "none", "save_strategy": "no", "disturb_frames": "", "compare_with_champion": False}


def measure(index: PreparedIndex, folder: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Trains once; accuracy on the test split and seconds of training."""
    config = load_config(DEMO, COMMON | settings)
    trained = train_model(config, index=index, output_dir=folder / "adapter")
    metrics = evaluate_adapter(
        config, adapter_dir=folder / "adapter", index=index, output_dir=folder / "evaluation", split="test"
    )
    order = metrics.reversed_pairs_accuracy
    return {"top1": metrics.top1_accuracy, "order_top1": order or 0.0, "seconds": trained.seconds}


def measure_as_on(processor: str, seeds: int, folder: str) -> list[dict[str, float]]:
    """Trains `lora` in a process of its own: what torch may use is read when it is imported."""
    words = [sys.executable, __file__, "--seeds", str(seeds), "--dir", folder, "--only", "lora"]
    done = subprocess.run(words, env=os.environ | PROCESSORS[processor], stdout=subprocess.PIPE, text=True, check=True)
    runs: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])["lora"]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", default=str(Path(tempfile.gettempdir()) / "ivcp-sample-set"))
    parser.add_argument("--only", nargs="*", choices=list(WAYS), help="measure these ways alone")
    parser.add_argument("--processors", action="store_true", help="train lora as on other processors instead")
    options = parser.parse_args()
    if options.processors:
        show({name: measure_as_on(name, options.seeds, options.dir) for name in PROCESSORS})
        return
    index = prepare(load_config(DEMO, COMMON | {"output_dir": options.dir}))
    results: dict[str, list[dict[str, float]]] = {}
    for name in options.only or WAYS:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                results.setdefault(name, []).append(measure(index, Path(folder), WAYS[name] | {"seed": seed}))
    show(results)


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """Prints the table and the JSON line."""
    print(f"{'way':<22}{'top-1: median':>14}{'lowest':>9}{'highest':>9}{'order top-1':>13}{'seconds':>9}")
    for name, runs in results.items():
        top1, order, seconds = (sorted(run[key] for run in runs) for key in ("top1", "order_top1", "seconds"))
        middle = statistics.median(top1)
        print(
            f"{name:<22}{middle:>14.3f}{top1[0]:>9.3f}{top1[-1]:>9.3f}"
            f"{statistics.median(order):>13.3f}{statistics.median(seconds):>9.1f}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
