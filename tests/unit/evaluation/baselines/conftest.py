import numpy as np
import pytest

from ivcp.demo.tiny_model import build_tiny_model
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.settings import ModelConfig, VideoConfig
from tests.models import PROMPT
from tests.samples import sample_of
from tests.unit.evaluation.baselines.tiny import Tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A Qwen2-VL of random weights, and seven clips of four or six frames."""
    directory = tmp_path_factory.mktemp("base")
    build_tiny_model(directory, warm_up=False)
    processor = Processor.from_pretrained(
        directory, video=VideoConfig(video_num_frames=4), special_tokens=("<ACTION>",)
    )
    random = np.random.default_rng(0)
    samples = [
        sample_of(
            processor,
            random.integers(0, 255, (4 + 2 * (number % 2), 32, 32, 3), dtype=np.uint8),
            label=number % 3,
            sample_id=f"d:{number}",
            source=f"{number}.mp4",
            messages=PROMPT,
        )
        for number in range(7)
    ]
    return Tiny(load_base_model(directory, settings=ModelConfig()), processor, samples)
