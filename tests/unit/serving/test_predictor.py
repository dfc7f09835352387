"""What the predictor computes in."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.serving.predictor import Predictor
from ivcp.stages.directory import load_directory
from tests.exported import PROMPT, save_exported
from tests.samples import sample_of


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "bf16"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Path]:
    """A model directory, and whether it was trained with `bf16`."""
    return request.param, save_exported(tmp_path_factory.mktemp("exported") / "model", bf16=request.param)


@pytest.fixture(scope="module")
def clips(trained: tuple[bool, Path]) -> list[Sample]:
    processor, rng = load_directory(trained[1]).processor, np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 4, 32, 32, 3), dtype=np.uint8)
    return [
        sample_of(processor, each, label=0, sample_id=f"d:{row}", source=f"{row}.mp4", messages=PROMPT)
        for row, each in enumerate(frames)
    ]


def loaded(directory: Path, **settings: str) -> Predictor:
    predictor = Predictor(directory, **settings)
    predictor.load()
    return predictor


def test_it_computes_as_evaluation_does(trained: tuple[bool, Path], clips: list[Sample]):
    """With `bf16` in bfloat16, on a CPU too."""
    is_bf16, directory = trained
    model, predictor = load_directory(directory), loaded(directory)
    assert model.precision == predictor.identity.precision == ("bfloat16" if is_bf16 else "float32")
    evaluated = torch.cat([logits for logits, _ in model.predict(clips, [range(len(clips))])])
    assert torch.equal(predictor.logits(clips), evaluated)


@pytest.mark.parametrize("infer_dtype", ["float32", "bfloat16"])
def test_another_precision_by_setting(trained: tuple[bool, Path], clips: list[Sample], infer_dtype: str):
    is_bf16, directory = trained
    predictor, own = loaded(directory, infer_dtype=infer_dtype), loaded(directory).logits(clips)
    assert predictor.identity.precision == infer_dtype
    found = predictor.logits(clips)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, own, atol=0.1, rtol=0)
    if is_bf16 != (infer_dtype == "bfloat16"):
        assert not torch.allclose(found, own, atol=1e-5, rtol=0)
