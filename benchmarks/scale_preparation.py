"""How preparation and reading grow with the number of rows, without decoding anything.

    python benchmarks/scale_preparation.py [--sizes 1000 10000 100000] [--order-rows 1000000]

For each size: deciding which clip goes to which shard (`plan`), and making the index of finished shards (`merge`). Then
what a training run does before its first step with an index of `--order-rows` clips: opening it, reading lengths and
labels, and the reading order of a first epoch by a budget of tokens. Each is a process of its own, whose peak memory is
that of the whole process. The shards are empty files: nothing here may read them. The last line is one JSON object;
`time_growth` per row and `memory_growth` are largest over smallest size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ivcp.data.prepared.table import KEY_BYTES, MORE_CONTENTS, write_table
from ivcp.preparation.merge import merge_receipts
from ivcp.preparation.plan import plan_shards
from ivcp.preparation.publish import Receipt, ShardFolder
from ivcp.records import SPLITS, Clip, Labels, Message, PreparedIndex, ShardInfo, Split
from ivcp.settings import RunConfig, VideoConfig
from ivcp.stages.registry import stage_of

ROWS_PER_VIDEO, CLASSES, CLIPS_PER_SHARD = 4, 101, 256
QUESTION = "<video>What is the person doing?<ACTION>"
LABELS = Labels(label_names=tuple(f"class {number}" for number in range(CLASSES)))


def write_annotations(path: Path, num_rows: int) -> None:
    """Rows as validation writes them; each video has a few."""
    message = (Message(role="user", content=QUESTION), Message(role="assistant", content="Something."))
    with path.open("w", encoding="utf-8") as file:
        for row in range(num_rows):
            video = row % max(1, num_rows // ROWS_PER_VIDEO)
            clip = Clip(
                clip_id=f"actions:{row}",
                dataset="actions",
                row=row,
                video=f"/data/videos/{video:07d}.mp4",
                messages=message,
                label=row % CLASSES,
                split=SPLITS[video % 10 // 8],
                group=str(video),
                start_seconds=float(row // max(1, num_rows // ROWS_PER_VIDEO)),
                num_frames=250,
                content_hash=f"sha256:{video:064x}",
            )
            file.write(clip.model_dump_json() + "\n")


def index_costs(folder: Path, num_rows: int) -> dict[str, float]:
    """Seconds per row and peak memory of planning and of merging."""
    stage, annotations = stage_of(RunConfig()), folder / "annotations.jsonl"
    write_annotations(annotations, 10)
    plan_shards(annotations, stage=stage, candidates=1, data_fingerprint="")  # imports what is needed once
    write_annotations(annotations, num_rows)
    started = time.perf_counter()
    plan = plan_shards(annotations, stage=stage, candidates=1, data_fingerprint="")
    planned = time.perf_counter()
    shards = ShardFolder(str(folder / "shards"))
    for shard in plan.shards:
        count = len(shard)
        info = ShardInfo(file=f"{shard.name}.arrow", split=shard.split, num_clips=count, num_bytes=0, sha256="0" * 64)
        tokens = (100,) * count
        receipt = Receipt(shard=info, offsets=tuple(range(count)), num_tokens=tokens, num_prompt_tokens=tokens)
        shards.write_receipt(shard, receipt)
    written = time.perf_counter()
    merged = merge_receipts(plan, shards)
    merged.check_lengths(2048, with_answers=True)
    merged.prompt(stage)
    write_table(folder / "clips.arrow", merged.shards, merged.columns(), columns=stage.columns)
    assert sum(merged.num_clips().values()) == num_rows
    return {
        "plan_microseconds_per_row": 1e6 * (planned - started) / num_rows,
        "merge_microseconds_per_row": 1e6 * (time.perf_counter() - written) / num_rows,
        "megabytes": _peak_bytes() / 1e6,
    }


def order_costs(folder: Path, num_rows: int) -> dict[str, float]:
    """What comes before the first batch of a run on so many clips."""
    from ivcp.data.prepared.batches import PlannedBatches
    from ivcp.data.prepared.reader import PreparedSamples

    # Written by another process, whose memory does not count.
    subprocess.run([sys.executable, __file__, "--write", str(folder), str(num_rows)], check=True)
    before, started = _peak_bytes(), time.perf_counter()
    clips = PreparedSamples(PreparedIndex.read(folder / "index.json"), "train")
    batches = PlannedBatches(
        clips.token_lengths(prompts_only=False), clips_per_batch=8, tokens_per_batch=8192, labels=clips.column("label")
    )
    first = next(iter(batches))
    seconds = time.perf_counter() - started
    assert len(clips) == num_rows
    assert first
    return {"seconds": seconds, "megabytes": _peak_bytes() / 1e6, "megabytes_before": before / 1e6}


def _write_index(folder: Path, num_rows: int) -> PreparedIndex:
    """An index whose shards are empty files."""
    rng, split, shards = np.random.default_rng(0), SPLITS[0], []
    for number, start in enumerate(range(0, num_rows, CLIPS_PER_SHARD)):
        count = min(CLIPS_PER_SHARD, num_rows - start)
        (folder / f"train-{number:05d}.arrow").touch()
        shards.append(_shard(f"train-{number:05d}.arrow", split, count))
    lengths = rng.integers(50, 2000, num_rows).astype(np.int32)
    values = {
        "sample_id": [f"actions:{row}" for row in range(num_rows)],
        "label": rng.integers(CLASSES, size=num_rows).astype(np.int32),
        "num_tokens": lengths,
        "num_prompt_tokens": lengths - 5,
        "offset": np.zeros(num_rows, dtype=np.int64),
        "key": np.zeros(num_rows, dtype=f"S{KEY_BYTES}"),
        MORE_CONTENTS: [[]] * num_rows,
        "content": np.arange(num_rows, dtype=np.uint64),
        "group": np.arange(num_rows, dtype=np.uint64),
    }
    return PreparedIndex(
        fingerprint="benchmark",
        root_uri=str(folder),
        shards=tuple(shards),
        table=write_table(folder / "clips.arrow", shards, values, columns=stage_of(RunConfig()).columns),
        labels=LABELS,
        video=VideoConfig(),
        stage="action_cls",
        special_tokens=("<ACTION>",),
        prompts=((Message(role="user", content=QUESTION),),),
        num_clips={split: num_rows},
        label_counts={split: tuple(np.bincount(values["label"], minlength=CLASSES).tolist())},
        max_tokens=int(lengths.max()),
        mean_tokens=float(lengths.mean()),
        data_fingerprint="benchmark",
    )


def _shard(file: str, split: Split, num_clips: int) -> ShardInfo:
    return ShardInfo(file=file, split=split, num_clips=num_clips, num_bytes=0, sha256="0" * 64)


def _peak_bytes() -> int:
    """Most memory that this process had resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(what: str, num_rows: int) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", what, str(num_rows)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stderr)
    measured: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    print(f"{what:<6}{num_rows:>9} rows  " + "  ".join(f"{key} {value:,.1f}" for key, value in measured.items()))
    return measured


def growth(rows: dict[int, dict[str, float]]) -> dict[str, float]:
    """Largest over smallest size: time per row, and peak memory."""
    first, last = rows[min(rows)], rows[max(rows)]
    times = [row["plan_microseconds_per_row"] + row["merge_microseconds_per_row"] for row in (first, last)]
    return {"time_growth": times[1] / times[0], "memory_growth": last["megabytes"] / first["megabytes"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--order-rows", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        folder = Path(options.write[0])
        _write_index(folder, int(options.write[1])).write(folder / "index.json")
        return
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            costs = index_costs if options.one[0] == "index" else order_costs
            print(json.dumps(costs(Path(folder), int(options.one[1]))))
        return
    rows = {size: measure("index", size) for size in sorted(options.sizes)}
    order = measure("order", options.order_rows)
    print(json.dumps({"index": rows, "order": order} | growth(rows)))


if __name__ == "__main__":
    main()
