"""`make demo-language`: SmolLM2 learns to say what the sample clips show, and keeps its English. It takes an hour."""

import json
import os
import subprocess

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.nightly
@pytest.mark.timeout(3 * 3600)
def test_the_figures_that_the_stages_come_to():
    done = subprocess.run(
        ["make", "-C", str(REPOSITORY), "demo-language"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    zero_shot, classes, sft, dpo, half, grpo = found
    assert sft["right"] >= 0.9 > zero_shot["right"]
    assert sft["right_by_order"] >= 0.9
    assert sft["partner_when_reversed"] >= 0.9
    assert classes["right"] >= 0.9
    assert dpo["pair_accuracy"] > 0.95
    assert dpo["margin"] > 0
    assert dpo["right_by_order"] >= sft["right_by_order"] - 0.01  # two of the 218 clips that pairs are about
    assert grpo["right"] >= half["right"] + 0.1
    for each in (sft, dpo, grpo):
        assert "Paris" in each["answer"]
        assert each["perplexity"] < 2 * zero_shot["perplexity"]
