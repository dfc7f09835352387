"""Training in two processes on CPUs, under the real torchrun, equals a single process, however weights are sharded."""

import json
from pathlib import Path

import numpy as np
import pytest

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.records import PreparedIndex
from ivcp.stages.directory import load_directory
from tests.integration.torchrun import torchrun
from tests.integration.training.training_processes import train_once
from tests.integration.training_data import training_settings

SHARDINGS = {
    "ddp": {},
    "z2": {"deepspeed": "z2"},
    "z3": {"deepspeed": "z3"},
    "fsdp": {"fsdp": "full_shard"},
}
OTHERS = {
    "z1": {"deepspeed": "z1"},
    "z2_offload": {"deepspeed": "z2_offload"},
    "z3_offload": {"deepspeed": "z3_offload"},
}
FULL = {"finetuning_type": "full", "learning_rate": 1e-3, "load_best_model_at_end": True}
KINDS = [*SHARDINGS, *OTHERS, "full_z3", "full_fsdp"]


def small(data: Path, name: str, **settings) -> dict:
    """Half of the batch for each of two processes."""
    return training_settings(
        data, data / name, per_device_train_batch_size=2, gradient_accumulation_steps=2, **settings
    )


def run_all(data: Path, runs: dict[str, dict], *, processes: int) -> dict[str, dict]:
    todo = data / f"runs-{len(list(data.glob('runs-*')))}.json"
    todo.write_text(json.dumps({"index": str(data / "index.json"), "runs": list(runs.values())}))
    done = torchrun("-m", "tests.integration.training.training_processes", str(todo), processes=processes)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return dict(zip(runs, json.loads(todo.with_suffix(".seen.json").read_text()), strict=True))


@pytest.fixture(scope="module")
def alone(data) -> dict[str, dict]:
    """The same trainings in this process, with the whole batch."""
    index = PreparedIndex.read(data / "index.json")
    batch = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    runs = {"lora": {}, "full": FULL}
    return {
        name: train_once(training_settings(data, data / f"alone-{name}", **batch, **kind), index)
        for name, kind in runs.items()
    }


@pytest.fixture(scope="module")
def together(data) -> dict[str, dict]:
    """All ways of sharding, in two processes of one start; then each goes on from its own second step."""
    runs = {name: small(data, name, **kind) for name, kind in (SHARDINGS | OTHERS).items()}
    runs |= {f"full_{name}": small(data, f"full_{name}", **FULL, **SHARDINGS[name]) for name in ("z3", "fsdp")}
    for name, kind in (SHARDINGS | {"full_z3": FULL | SHARDINGS["z3"]}).items():
        checkpoint = str(data / name / "checkpoint-2")
        runs[f"{name} resumed"] = small(data, f"{name}-resumed", resume=checkpoint, **kind)
    runs["z3 from ddp"] = small(data, "z3-from-ddp", resume=str(data / "ddp" / "checkpoint-2"), **SHARDINGS["z3"])
    return run_all(data, runs, processes=2)


def column(seen: dict, key: str) -> list[float]:
    return [row[key] for row in seen["rows"] if key in row]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradient_norms_equal_the_single_process(alone, together, kind):
    expected = alone["full" if kind.startswith("full") else "lora"]

    for key in ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_top1_accuracy"):
        assert column(together[kind], key) == pytest.approx(column(expected, key), rel=1e-4, abs=1e-5), key
    np.testing.assert_allclose(together[kind]["logits"], expected["logits"], atol=1e-4)
    assert column(expected, "loss")[-1] < column(expected, "loss")[0]


@pytest.mark.parametrize("kind", ["z3", "z3_offload", "full_z3", "fsdp", "full_fsdp"])
def test_each_process_holds_half_of_the_weights(together, alone, kind):
    seen = together[kind]

    assert seen["whole"] == alone["full" if kind.startswith("full") else "lora"]["whole"]
    assert 0.49 < seen["held"] / seen["whole"] < 0.52


@pytest.mark.parametrize("kind", ["ddp", "z3", "fsdp"])
def test_the_table_of_what_trains_counts_whole_parameters(together, alone, kind):
    assert together[kind]["table"] == alone["lora"]["table"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_checkpoint_is_a_complete_adapter_directory(data, together, kind):
    clips = PreparedSamples(PreparedIndex.read(data / "index.json"), "val")
    clips = [clips[number] for number in range(len(clips))]
    for directory in (data / kind, data / kind / "checkpoint-4"):
        logits = load_directory(directory).outputs(clips)
        if directory == data / kind or not kind.startswith("full"):  # the full ones end with the best checkpoint
            np.testing.assert_allclose(logits.numpy(), together[kind]["logits"], atol=1e-4)
    earlier = load_directory(data / kind / "checkpoint-2").outputs(clips)
    assert np.abs(earlier.numpy() - logits.numpy()).max() > 1e-3


@pytest.mark.parametrize("kind", [*SHARDINGS, "full_z3"])
def test_going_on_from_a_checkpoint_repeats_the_losses(together, kind):
    for key in ("loss", "grad_norm", "learning_rate"):
        resumed = [row[key] for row in together[f"{kind} resumed"]["rows"] if key in row]
        assert len(resumed) == 4
        assert resumed == pytest.approx(column(together[kind], key), rel=1e-5, abs=1e-6)


def test_a_checkpoint_of_another_way_of_spreading_is_refused(together):
    message = together["z3 from ddp"]["error"]

    assert "neither deepspeed nor fsdp, this one has deepspeed (ZeRO-3)" in message
    assert "adapter_name_or_path" in message


def test_going_on_with_another_number_of_processes(data, together):
    """DDP and FSDP2 can; DeepSpeed says why it cannot."""
    runs = {
        name: training_settings(
            data,
            data / f"{name}-three",
            resume=str(data / name / "checkpoint-2"),
            per_device_train_batch_size=2,
            **kind,
        )
        for name, kind in SHARDINGS.items()
        if name != "z3"
    }
    seen = run_all(data, runs, processes=3)

    for kind in ("ddp", "fsdp"):
        losses = column(seen[kind], "loss")
        assert losses[:2] == column(together[kind], "loss")[:2]
        assert len(losses) == 4
        assert losses[-1] < losses[0]
    assert "was written by 2 processes, this run has 3" in seen["z2"]["error"]
