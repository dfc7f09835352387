"""Mixed traffic for minutes: right answers, no request lost, bounded memory and disk, whatever some clients do."""

import logging
import time
from pathlib import Path

import httpx
import pytest

from ivcp.serving.predictor import Predictor as OneModel
from tests.integration.serving.traffic import Clip, Predictor, Traffic, percentile
from tests.models import save_tiny_classifier
from tests.videos import write_video

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)

_MAX_UPLOADS_MB = 20.0


@pytest.mark.parametrize(
    ("seconds", "kill_every_seconds"),
    [(60, 6), pytest.param(1800, 60, marks=[pytest.mark.nightly, pytest.mark.timeout(2400)])],
)
def test_mixed_traffic(tmp_path: Path, seconds: int, kill_every_seconds: int):
    model_dir = save_tiny_classifier(tmp_path / "model")
    predictor = Predictor(
        model_dir,
        tmp_path,
        max_upload_mb=5,
        max_uploads_mb=_MAX_UPLOADS_MB,
        upload_timeout_seconds=3,
        num_decoders=2,
    )
    traffic = Traffic(predictor, _clips(model_dir, tmp_path))
    predictor.start()
    try:
        with traffic.going_on(good_clients=6, kill_every_seconds=kill_every_seconds):
            traffic._is_over.wait(seconds / 3)
            assert predictor.end() == 0
            predictor.start()
            traffic._is_over.wait(seconds / 6)
            warm = predictor.memory_bytes()
            traffic._is_over.wait(seconds / 2)
            used = predictor.memory_bytes()
        deadline = time.monotonic() + 10
        while predictor.upload_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert predictor.upload_bytes() == 0
        requests = predictor.requests()
        assert predictor.end() == 0
    finally:
        if predictor.process is not None:
            predictor.process.kill()

    for path, times in traffic.seconds.items():
        log.warning(
            "%s: %d answers, p50 %.3f s, p99 %.3f s", path, len(times), *(percentile(times, s) for s in (0.5, 0.99))
        )
    log.warning("%s; memory %.0f -> %.0f MB", dict(traffic.outcomes), warm / 1e6, used / 1e6)
    assert not traffic.wrong, traffic.wrong[:5]
    failed = [line for line in requests.values() if line["status"] == httpx.codes.INTERNAL_SERVER_ERROR]
    assert not failed, (failed[:3], predictor.log.read_text()[-3000:])
    lost = [one for one in traffic.cut_off if one in requests]
    assert not lost, [requests[one] for one in lost[:5]]  # it was accepted
    assert used < 1.1 * warm
    assert traffic.largest_upload_bytes < 2 * _MAX_UPLOADS_MB * 1e6
    for kind in (
        "answered",
        "bad file",
        "slow upload",
        "aborted",
        "oversize",
        "long prompt",
        "killed",
        "not connected",
    ):
        assert traffic.outcomes[kind], traffic.outcomes


def _clips(model_dir: Path, folder: Path) -> list[Clip]:
    model = OneModel(model_dir)
    model.load()
    clips = []
    for number in range(8):
        video = write_video(
            folder / f"{number}.mp4", num_frames=8 + 4 * number, seed=number, size=48 + 16 * (number % 3)
        )
        clips.append(Clip(video.read_bytes(), model.predict(video).logits))
    return clips
