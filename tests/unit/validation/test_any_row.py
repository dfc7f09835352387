"""Any value at any place of a row: it is read, and then it can be written and used, or it is an AnnotationError."""

import copy
import json
import random
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from tests.data_sets import DataSet

NUM_DATA_SETS = 60
NAN, INFINITY = float("nan"), float("inf")
VALUES: list[Any] = [
    *(None, "", "  ", NAN, INFINITY, True, False, 0, 1, 1.0, 1.5, -1, 2**63, 2**70, 10**400, "nan", "1.0", "-3", "0"),
    *("x", "run", "9" * 5000, "\ud83d", "\0", "[", "[[[", " TEST", "<|x|>", "<video><ACTION>", "a.mp4", "a\\b"),
    *("https://x/a.mp4", "C:\\a.mp4", "~/a.mp4", "file:///x", "file://x", "s3:/x", "s3://b/k", "data:video/mp4;x"),
    *([], {}, [None], [{}], [[]], ["a.mp4"], [["a", "b"]], [0, 1], {"path": "a.mp4", "bytes": None}, {"from": "human"}),
]
PARTS = [{"type": "video"}, {"type": "text", "text": "<ACTION>"}]
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "<video>?<ACTION>", "input": "", "output": "x", "history": [["a", "b"]], "system": "s"},
    "openai": {"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": "x"}]},
    "sharegpt": {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "<video>?<ACTION>"}]},
}


def mutate(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.1:
        return copy.deepcopy(rng.choice(VALUES))
    if isinstance(value, dict):
        return {key: mutate(inner, rng) for key, inner in value.items()}
    return [mutate(inner, rng) for inner in value] if isinstance(value, list) else value


def make_rows(formatting: str, rng: random.Random) -> list[Any]:
    rows = []
    for number in range(rng.randint(2, 4)):
        row = CONVERSATIONS[formatting] | {
            "videos": [f"{number}.mp4"],
            "action_label": ("run", "sit")[number % 2],
            "group": "g",
            "split": "train",
            "start_seconds": 0,
            "end_seconds": 2,
        }
        rows.append(mutate(row, rng) if rng.random() < 0.4 else row)
    return rows


@pytest.mark.parametrize("formatting", CONVERSATIONS)
def test_any_value_anywhere(data_set: DataSet, formatting: str) -> None:
    rng, num_read = random.Random(formatting), 0
    for _ in range(NUM_DATA_SETS):
        data_set.add("actions", make_rows(formatting, rng), formatting=formatting, columns={"images": "images"})
        with Catalog() as catalog:
            try:
                labels = read_annotations(data_set.config(), catalog)
            except AnnotationError:
                continue
            for row in catalog.usable():
                texts = [message.content for message in row.messages]
                values = [row.video, texts, row.group, row.start_seconds, row.end_seconds]
                json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
                assert "None" not in texts
                assert all(text.strip() for text in texts)
                assert row.label < labels.num_classes
            num_read += 1
    assert 5 < num_read < NUM_DATA_SETS
