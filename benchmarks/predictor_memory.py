"""The memory of a predictor: of all its processes, beside what its pod asks for (`ivcp.export.predictor_needs`).

For each number of megabytes a tiny Qwen2-VL is made as large with wide layers and random weights, served by
`python -m ivcp.serving.server` with four decoding processes, and asked for short clips. Memory is the processes'
proportional set size: their own, and their share of what they have with others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from ivcp.data.seen_clips import SeenClips
from ivcp.demo.actions import LABEL_NAMES
from ivcp.demo.clip import draw_clip, sample_performer, write_clip
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.export.predictor_needs import predictor_needs
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import Labels, Message
from ivcp.settings import ServingConfig, config_from_settings
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import save_directory
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of

_PORT = 18473
_CLIPS = 5
_MIB = 2**20


def main() -> None:
    """Prints a row for each size, and all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[0, 250, 1000], help="of weights in float32")
    rows = []
    for megabytes in parser.parse_args().megabytes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_measure(Path(folder), megabytes))
        print(
            "{weights_mib:6d} MiB of weights: {used_mib:6d} MiB used, {asked} asked for".format(**rows[-1]), flush=True
        )
    print(json.dumps(rows))


def _measure(folder: Path, megabytes: int) -> dict[str, int | str]:
    model_dir = _write_model(folder / "model", megabytes)
    rng = np.random.default_rng(0)
    write_clip(folder / "clip.mp4", *draw_clip(LABEL_NAMES[0], sample_performer(0, 0), rng))
    command = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir), "--port", str(_PORT)]
    command += ["--num-decoders", "4"]  # as on the four cores of the manifest
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _ask(folder / "clip.mp4")
            used = sum(_memory(pid) for pid in [process.pid, *_below(process.pid)])
        finally:
            process.terminate()
    weights = sum(path.stat().st_size for path in model_dir.rglob("*.safetensors"))
    asked = predictor_needs(model_dir, ServingConfig()).memory_request
    return {"weights_mib": weights // _MIB, "used_mib": used // _MIB, "asked": asked}


def _write_model(directory: Path, megabytes: int) -> Path:
    build_tiny_model(directory, warm_up=False)
    if megabytes:
        config = AutoConfig.from_pretrained(directory)
        text = config.get_text_config()
        text.intermediate_size = megabytes * 10**6 // (4 * 3 * text.hidden_size * text.num_hidden_layers)
        AutoModelForImageTextToText.from_config(config).save_pretrained(directory)
    config = config_from_settings({"model_name_or_path": str(directory), "video_num_frames": 8})
    processor = Processor.from_pretrained(directory, video=config.video, special_tokens=("<ACTION>",))
    model = load_base_model(directory, settings=config.model)
    shape = DecoderShape(decoder_type="linear", hidden_size=model.config.get_text_config().hidden_size, num_classes=2)
    module = ActionClassifier(
        model,
        ActionDecoder(shape),
        labels=Labels(label_names=("one", "other")),
        action_token_id=processor.token_id("<ACTION>"),
    )
    prompt = (Message(role="user", content="<video>What is the person doing? <ACTION>"),)
    info = ModelInfo(trained_steps=1, prompt=prompt, data_fingerprint="none", prepared_fingerprint="none")
    with torch.no_grad():
        save_directory(
            directory,
            stage=stage_of(config),
            module=module,
            processor=processor,
            info=info,
            seen=SeenClips(),
            with_backbone=False,
        )
    return directory


def _ask(clip: Path) -> None:
    deadline = time.monotonic() + 300
    with httpx.Client(base_url=f"http://127.0.0.1:{_PORT}", trust_env=False, timeout=300) as client:
        while True:
            try:
                if client.get("/readyz").status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError("the predictor does not become ready")
            time.sleep(0.2)
        for _ in range(_CLIPS):
            with clip.open("rb") as video:
                client.post("/v1/predict", files={"video": video}).raise_for_status()


def _below(pid: int) -> list[int]:
    """All processes that a process has started, and those of these."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return children + [below for child in children for below in _below(child)]


def _memory(pid: int) -> int:
    """Proportional set size, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
