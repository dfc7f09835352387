"""Whatever people do to an `output_dir`, in whatever order: it is complete and right, or refused."""

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records import PreparedIndex
from ivcp.stages.directory import load_directory
from ivcp.training.result import TRAINING_RESULT_FILE, TrainingResult
from tests.integration.training.any_order import Command, start_server
from tests.integration.training_data import training_settings

EPOCHS = 3
RUN = {
    "max_steps": -1,
    "num_train_epochs": EPOCHS,
    "save_strategy": "epoch",
    "save_steps": None,
    "eval_strategy": "no",
    "save_total_limit": 2,
    "logging_steps": 1,
    "lora_dropout": 0.0,
}
KINDS: dict[str, dict[str, Any]] = {"lora": {}, "full": {"finetuning_type": "full", "learning_rate": 1e-4}}
ACTIONS = (
    "start",
    "kill",
    "terminate",
    "twice",
    "overwrite",
    "processes",
    "batch",
    "full disk",
    "mlflow down",
    "foreign",
)
NUM_ACTIONS = 7


@dataclass
class Reference:
    """What uninterrupted runs come to."""

    folder: Path
    samples: list[Any]
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def settings(self, output_dir: Path, kind: str, **more: Any) -> dict[str, Any]:
        data = {"dataset": "clips", "dataset_dir": str(self.folder)}
        settings = training_settings(self.folder, output_dir, **data | RUN | KINDS[kind] | more)
        return {name: value for name, value in settings.items() if value is not None}

    def command(self, output_dir: Path, kind: str, *, processes: int = 1, full: bool = False, **more: Any) -> Command:
        settings = self.settings(output_dir, kind, **more)
        return Command(self.folder / "index.json", settings, processes=processes, disk_is_full=full)


@pytest.fixture(scope="module")
def reference(data: Path) -> Reference:
    start_server()
    (data / "clips.json").write_text('[{"messages": [], "videos": ["0.mp4"]}]')  # nobody reads it
    (data / "dataset_info.json").write_text('{"clips": {"file_name": "clips.json", "formatting": "sharegpt"}}')
    clips = PreparedSamples(PreparedIndex.read(data / "index.json"), "val")
    found = Reference(data, [clips[number] for number in range(len(clips))])
    for kind in KINDS:
        began = time.monotonic()
        command = found.command(data / f"whole-{kind}", kind)
        assert command.wait() == 0, command.log.read_text()
        found.seconds = time.monotonic() - began
        found.outputs[kind] = load_directory(data / f"whole-{kind}").outputs(found.samples)
    return found


class Directory:
    """An `output_dir`, and what is known of it."""

    def __init__(self, path: Path, reference: Reference) -> None:
        self.path, self.reference = path, reference
        self.kind = "lora"
        self.finished: torch.Tensor | None = None
        """Outputs of the last run that came to its end."""
        self.is_exact = True
        """Whether what goes on there was computed in the same batches as the reference."""
        self.foreign: dict[Path, bytes] = {}

    def do(self, action: str, rng: random.Random) -> None:
        """Does it, and looks at what is left."""
        if action == "foreign":
            return self.start_beside_others_checkpoint()
        kind = rng.choice(list(KINDS)) if action in ("start", "kill", "overwrite") else self.kind
        overwrites = action == "overwrite" or rng.random() < 0.3
        more: dict[str, Any] = {"overwrite_output_dir": True} if overwrites else {}
        if action in ("processes", "batch"):
            self.is_exact, more = False, {"resume_from_checkpoint": True}
        if action == "batch":
            more["per_device_train_batch_size"] = 2
        if action == "mlflow down":
            more |= {"report_to": "mlflow", "mlflow_tracking_uri": "http://127.0.0.1:9"}
        began = self.kind != kind and overwrites
        command = self.reference.command(
            self.path, kind, processes=2 if action == "processes" else 1, full=action == "full disk", **more
        )
        other = self.reference.command(self.path, kind, **more) if action == "twice" else None
        if action in ("kill", "terminate"):
            number = signal.SIGKILL if action == "kill" else signal.SIGTERM
            command.stop(number, after=rng.uniform(0.1, 1.2) * self.reference.seconds)
        codes = [started.wait() for started in (command, other) if started]
        self.kind = kind
        if began and 0 in codes:
            self.is_exact = True
        self.check(kind, ended=0 in codes, log=command.log)
        self.put(self.path / "notes.txt")
        self.put(self.path / "mine" / "adapter_model.safetensors")

    def put(self, file: Path) -> None:
        """A file of somebody else."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"mine")
        self.foreign[file] = b"mine"

    def start_beside_others_checkpoint(self) -> None:
        checkpoint = self.path / "checkpoint-7"
        before = self.files()
        self.put(checkpoint / "adapter_config.json")
        command = self.reference.command(self.path, self.kind, overwrite_output_dir=True)
        assert command.wait() == 1
        assert "which no training of this project wrote" in command.log.read_text()
        assert self.foreign.pop(checkpoint / "adapter_config.json") == b"mine"
        shutil.rmtree(checkpoint)
        assert before == self.files()

    def files(self) -> dict[Path, bytes]:
        """Without what a killed run leaves to say whose the folder is: the next one removes it."""
        files = (path for path in self.path.rglob("*") if path.is_file() and path.name != ".owner")
        return {path: path.read_bytes() for path in files}

    def check(self, kind: str, *, ended: bool, log: Path) -> None:
        for file, content in self.foreign.items():
            assert file.read_bytes() == content
        try:
            outputs = load_directory(self.path).outputs(self.reference.samples)
        except (ModelFilesError, FileNotFoundError):
            assert not ended, f"a run that ended well is refused: {log.read_text()}"
            self.finished = None
            return
        is_of_kind = self.is_exact and torch.allclose(outputs, self.reference.outputs[kind], atol=1e-4)
        if ended:
            result = TrainingResult.read(self.path / TRAINING_RESULT_FILE)
            assert result.epochs == EPOCHS, log.read_text()
            assert is_of_kind or not self.is_exact, log.read_text()
        else:
            is_left = self.finished is not None and torch.equal(outputs, self.finished)
            assert is_left or is_of_kind or not self.is_exact, f"it is of no run that ended: {log.read_text()}"
        self.finished = outputs


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[] if seed < 4 else pytest.mark.nightly) for seed in range(200)]
)
def test_a_directory_is_right_or_refused_in_any_order(reference: Reference, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    directory = Directory(tmp_path / "out", reference)
    for action in (*rng.choices(ACTIONS, k=NUM_ACTIONS), "overwrite"):
        directory.do(action, rng)
    assert directory.finished is not None
