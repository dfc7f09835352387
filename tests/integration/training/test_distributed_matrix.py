"""Families in two processes, sharded as on GPUs, equal one process: a telling part, and all of it at night.

python -m pytest -m nightly tests/integration/training/test_distributed_matrix.py
"""

import pytest

from tests.conftest import REPOSITORY
from tests.distributed_matrix import METHODS, PRECISIONS, SHARDINGS, Verdict, as_table, cells_of, run_matrix
from tests.tiny_families import FAMILIES

TELLING = [
    # DeepSpeed takes weights of one precision only; FSDP2 and DeepSpeed cast times, which are positions of this family.
    ("qwen2_5_vl", ["full", "freeze"], "bf16", ["z3", "FSDP2"]),
    # transformers took the shapes of its experts for others under ZeRO-3, where it read them and where it wrote them.
    ("qwen3_vl_moe", ["full"], "float32", ["z3"]),
    # Its vision tower has a layer that videos do not use, and ZeRO-3 draws weights of it while it is loaded.
    ("llava_next_video", ["lora, open tower"], "float32", ["DDP", "z3"]),
]


def bad(found):
    return {cell.name: str(seen) for cell, seen in found.items() if not seen.is_green(cell)}


@pytest.mark.parametrize(("family", "methods", "precision", "shardings"), TELLING)
def test_what_broke_before(tmp_path, family, methods, precision, shardings):
    found = run_matrix(tmp_path, [family], methods, [precision], shardings)

    assert bad(found) == {}
    assert len(found) == len(methods) * len(shardings)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_two_processes(tmp_path, family):
    assert bad(run_matrix(tmp_path, [family], list(METHODS), list(PRECISIONS), list(SHARDINGS))) == {}


def test_the_documents_table_is_of_these_families_and_nothing_in_it_is_red():
    heading, *rows = (REPOSITORY / "docs" / "distributed_matrix.md").read_text().partition("<!--")[2].splitlines()[2:]

    assert (
        heading == as_table({cell: Verdict() for cell in cells_of("any", ["lora"], ["bf16"], SHARDINGS)}).split("\n")[0]
    )
    assert {row.split("`")[1] for row in rows[1:]} <= set(FAMILIES)
    assert not [row for row in rows if "**" in row]
