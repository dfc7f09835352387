"""Videos that show something."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

MakeScene = Callable[..., Path]


@pytest.fixture
def make_scene() -> MakeScene:
    def make(path: Path, *, seed: int, size: tuple[int, int] = (96, 128), crf: int = 18, num_frames: int = 12) -> Path:
        """Blurred blobs of this seed that drift; the same seed in another size or quality looks the same."""
        noise = np.random.default_rng(seed).integers(0, 255, (6, 16, 3), dtype=np.uint8)
        wide = np.asarray(Image.fromarray(noise).resize((512, 192), Image.Resampling.BICUBIC))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": str(crf)})
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for number in range(num_frames):
                frame = Image.fromarray(wide[:, 16 * number : 16 * number + 256]).resize((size[1], size[0]))
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
        return path

    return make
