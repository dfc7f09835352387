"""Files with wrong bytes are read or refused with their name; nothing else happens, above all no end of the process."""

import gzip
import json
import random
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from ivcp.data.registry import AnnotationError, read_rows

ROWS = [{"videos": [f"{number}.mp4"], "label": number, "text": '跑, "x"\n'} for number in range(40)]
TEXTS = {
    "a.json": json.dumps(ROWS, ensure_ascii=False).encode(),
    "a.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "a.csv": ("a;b;c\n" + "".join(f'{number};"x ""y"" 跑";z\n' for number in range(40))).encode(),
    "a.tsv": ("a\tb\n" + "1\t2\n" * 40).encode("utf-16"),
}


def whole(folder: Path, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(TEXTS[name.removesuffix(".gz")])
    if name in TEXTS:
        return TEXTS[name]
    table, path = pa.Table.from_pylist(ROWS), folder / name
    if name.endswith(".parquet"):
        parquet.write_table(table, path)
    else:
        new = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    return path.read_bytes()


def damage(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(damaged) or 1)
        kind = rng.choice(("change", "change", "cut", "remove", "insert"))
        if kind == "change":
            damaged[place : place + 1] = rng.randbytes(1)
        elif kind == "cut":
            del damaged[place:]
        elif kind == "remove":
            del damaged[place : place + rng.randint(1, 30)]
        else:
            damaged[place:place] = rng.randbytes(rng.randint(1, 10))
    return bytes(damaged)


@pytest.mark.parametrize("name", [*TEXTS, *(f"{name}.gz" for name in TEXTS), "a.parquet", "file.arrow", "stream.arrow"])
def test_damage(tmp_path: Path, name: str) -> None:
    content, rng = whole(tmp_path, name), random.Random(name)
    for _ in range(60):
        (tmp_path / name).write_bytes(damage(content, rng))
        with suppress(AnnotationError):
            list(read_rows(tmp_path / name))
