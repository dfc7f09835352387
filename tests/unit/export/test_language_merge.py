"""What counts as another answer of a model that writes, once its weights are rounded."""

from __future__ import annotations

import pytest
import torch

from ivcp.export.merge import MergeError, check_merged
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory
from tests.language import language_config, processor_of, samples_of
from tests.served_language import save_tiny_language_model


@pytest.mark.parametrize(("column", "is_refused"), [(0, True), (1, False)])
def test_the_loss_counts_and_a_token_that_was_nearly_as_likely_does_not(tmp_path, column, is_refused):
    directory = save_tiny_language_model(tmp_path / "sft", "sft")
    samples = samples_of(language_config(directory, "sft"), processor_of(directory), range(3))
    expected = load_directory(directory, dtype=torch.float32).outputs(samples)
    expected[0, column] += 1.0
    compared = {"samples": samples, "machine": ModelConfig(), "expected": expected, "dtype": torch.bfloat16}
    if is_refused:
        with pytest.raises(MergeError, match="of 3 clips 1 are answered otherwise"):
            check_merged(directory, **compared)
    else:
        assert check_merged(directory, **compared).max_logit_difference == pytest.approx(1.0, abs=1e-3)
