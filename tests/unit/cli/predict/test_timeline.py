"""`ivcp timeline`: segments as a table, or events as JSON lines."""

import json

from tests.predictor_api.server import DESCRIPTION, MODEL, refuse, say, stream

SCORE = {"label": 2, "label_name": "wave", "confidence": 0.75}
EVENTS = (
    (
        "start",
        {"duration_seconds": 4.0, "num_windows": 2, "window_seconds": 2.0, "stride_seconds": 2.0, "model": MODEL},
    ),
    ("window", {"start_seconds": 0.0, "end_seconds": 2.0, **SCORE, "unsure": False, "top": [SCORE]}),
    ("window", {"start_seconds": 2.0, "end_seconds": 4.0, **SCORE, "unsure": True, "top": [SCORE]}),
    (
        "segments",
        {
            "segments": [
                {"start_seconds": 0.0, "end_seconds": 2.0, **SCORE},
                {"start_seconds": 2.0, "end_seconds": 4.0, "label": None, "label_name": None, "confidence": 0.3},
            ]
        },
    ),
)


def test_segments_are_a_table(api, ivcp):
    api.script += [say(200, json.dumps(DESCRIPTION).encode()), stream(*EVENTS)]
    done = ivcp("timeline", "a.mp4", "--url", api.url, "--window", 2, "--stride", 2, "--prompt", "Who?")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if " s │" in line]

    assert done.exit_code == 0, done.output
    assert rows == [["0.0 s", "2.0 s", "wave", "0.750"], ["2.0 s", "4.0 s", "–", "0.300"]]
    assert api.asked[1].fields == {"window_seconds": "2.0", "stride_seconds": "2.0", "prompt": "Who?"}


def test_events_are_lines(api, ivcp):
    api.script += [say(200, json.dumps(DESCRIPTION).encode()), stream(*EVENTS)]
    done = ivcp("timeline", "a.mp4", "--url", api.url, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]

    assert [each["event"] for each in found] == ["start", "window", "window", "segments"]
    assert found[2]["unsure"] is True
    assert found[3]["segments"][1]["label"] is None


def test_a_video_that_cannot_be_used_is_a_failure(api, ivcp):
    api.script += [say(200, json.dumps(DESCRIPTION).encode()), refuse(422, "video_truncated")]
    done = ivcp("timeline", "a.mp4", "--url", api.url)

    assert isinstance(done.exception, RuntimeError)
    assert str(done.exception) == "video_truncated: it is video_truncated"
