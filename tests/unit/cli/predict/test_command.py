"""`ivcp predict` and a server: what is asked, what is written, how it ends."""

import csv
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.predictor_api.server import DESCRIPTION, Handler, answer_for, hang, predictor_api, refuse, say

IVCP = Path(sys.executable).parent / "ivcp"


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def questions(api):
    return [asked for asked in api.asked if asked.path == "/v1/predict"]


def test_one_bad_video_stops_no_other(api, ivcp):
    done = ivcp("predict", "--url", api.url, "--json", ".", "gone.mp4")

    assert done.exit_code == 1
    found = lines(done)
    assert [each["video"] for each in found] == ["./a.mp4", "./b.mp4", "./c.mp4", "./d.mp4", "gone.mp4"]
    assert [each["answer"]["label_name"] for each in found if "answer" in each] == ["sit_down", "wave", "sit_down"]
    assert found[0]["answer"]["unsure"] is False
    assert found[3]["answer"]["unsure"] is True
    error = found[1]["error"]
    assert (error["status"], error["code"], error["detail"]) == (422, "video_not_a_video", "it is video_not_a_video")
    assert len(error["request_id"]) == 32
    assert found[4]["error"] == {"code": "video_missing", "detail": "there is no file gone.mp4"}
    assert "frame_images" not in found[0]["answer"]


def test_the_table_shows_what_the_model_is_unsure_of(api, ivcp):
    done = ivcp("predict", "--url", api.url, "a.mp4", "b.mp4", "d.mp4")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if ".mp4" in line]

    assert done.exit_code == 1
    assert rows == [
        ["a.mp4", "sit_down", "0.900"],
        ["b.mp4", "video_not_a_video: it is video_not_a_video", "–"],
        ["d.mp4", "sit_down (unsure)", "0.900"],
    ]


def test_all_classified_is_zero_and_other_classes_are_shown_where_they_are_asked_for(api, ivcp):
    scores = [{"label": label, "label_name": f"class {label}", "confidence": 0.5} for label in (2, 0)]
    answer = answer_for(b"\x02 video", top=scores)
    api.script += [say(200, json.dumps(DESCRIPTION).encode()), say(200, json.dumps(answer).encode())]
    done = ivcp("predict", "--url", api.url, "c.mp4", "--top-k", 2)

    assert done.exit_code == 0
    assert "class 0 0.500" in done.stdout
    assert questions(api)[-1].fields == {"top_k": "2"}


def test_csv_goes_to_stdout_or_into_a_file(api, ivcp):
    on_stdout = ivcp("predict", "--url", api.url, "--csv", "-", "a.mp4", "b.mp4")
    into_file = ivcp("predict", "--url", api.url, "--csv", "deep/answers.csv", "a.mp4", "b.mp4")

    rows = list(csv.DictReader(io.StringIO(on_stdout.stdout)))
    assert [rows[0][name] for name in ("video", "label", "label_name", "unsure", "code")] == [
        "a.mp4",
        "0",
        "sit_down",
        "False",
        "",
    ]
    assert float(rows[0]["confidence"]) == 0.9
    assert (rows[1]["label_name"], rows[1]["code"]) == ("", "video_not_a_video")
    assert Path("deep/answers.csv").read_text() == on_stdout.stdout
    assert into_file.stdout == ""
    assert on_stdout.exit_code == into_file.exit_code == 1


def test_settings_go_to_the_server(api, ivcp):
    words = ("--prompt", "Who?", "--top-k", 3, "--start", 0.5, "--end", 2, "--deadline", 9)
    done = ivcp("predict", "--url", api.url, *words, "a.mp4", "s3://bucket/x.mp4", "s3://forbidden/y.mp4", "--json")

    first, second, third = sorted(questions(api), key=lambda asked: str(asked.fields.get("uri", "")))
    assert first.fields == {"prompt": "Who?", "top_k": "3", "start_seconds": "0.5", "end_seconds": "2.0"}
    assert second.fields["uri"] == "s3://bucket/x.mp4"
    assert 0 < float(first.headers["x-deadline-seconds"]) <= 9
    assert third.fields["uri"] == "s3://forbidden/y.mp4"
    assert lines(done)[2]["error"]["code"] == "uri_forbidden"


def test_names_that_are_no_utf8_are_escaped(api, ivcp):
    Path(os.fsdecode(b"\xff\xe6\x98\x9f.mp4")).write_bytes(b"\x01")
    (as_json,) = lines(ivcp("predict", "--url", api.url, "--json", "*\u661f.mp4"))
    as_table = ivcp("predict", "--url", api.url, "*\u661f.mp4")
    as_csv = ivcp("predict", "--url", api.url, "*\u661f.mp4", "--csv", "-")

    assert as_json["video"] == os.fsdecode(b"\xff\xe6\x98\x9f.mp4")
    assert as_table.exit_code == as_csv.exit_code == 0
    assert "\u661f.mp4" in as_table.stdout
    assert "\u661f.mp4,1,stand_up" in as_csv.stdout


def test_the_key_is_the_environments_or_the_words(ivcp, monkeypatch):
    with predictor_api(key="secret-1") as api:
        assert ivcp("predict", "--url", api.url, "--key", "secret-1", "a.mp4").exit_code == 0
        monkeypatch.setenv("IVCP_KEY", "secret-1")
        assert ivcp("predict", "--url", api.url, "a.mp4").exit_code == 0
        refused = ivcp("predict", "--url", api.url, "--key", "secret-2", "a.mp4")
        assert isinstance(refused.exception, PermissionError)
        assert "key_unknown" in str(refused.exception)
        assert "(IVCP_KEY or --key)" in str(refused.exception)
        assert "secret" not in str(refused.exception) + refused.output + ivcp("predict", "--help").output
        assert questions(api)[-1].headers["authorization"] == "Bearer secret-1"  # no video went out with the other


def test_a_server_that_is_not_there_is_said_once_and_no_video_is_read():
    done = subprocess.run(
        [IVCP, "predict", "--url", f"http://127.0.0.1:{free_port()}", "--deadline", "1", "a.mp4", "b.mp4"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "unreachable: " in line


def test_a_file_of_answers_is_kept_where_there_are_no_new_ones(ivcp):
    Path("answers.csv").write_text("of yesterday")
    done = ivcp("predict", "--url", f"http://127.0.0.1:{free_port()}", "--deadline", 1, "--csv", "answers.csv", "a.mp4")

    assert isinstance(done.exception, ConnectionError)
    assert Path("answers.csv").read_text() == "of yesterday"


def test_an_earlier_server_that_does_not_describe_itself_is_asked(api, ivcp):
    api.script.append(say(404, b'{"detail": "Not Found"}'))
    assert ivcp("predict", "--url", api.url, "a.mp4").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--url", "http://h", "--model-dir", "m"), "--model-dir is for a model directory"),
        (("--url", "http://h", "--trust-remote-code"), "--trust-remote-code is for a model directory"),
        (("--key", "k"), "--key goes with --url"),
        (("--concurrency", 2), "--concurrency goes with --url"),
        (("--vllm", "http://v", "--key", "k"), "--key goes with --url"),
        (("--vllm", "http://v", "--url", "http://h"), "--url does not go with --vllm"),
        (("--vllm", "http://v", "--prompt", "Who?"), "--prompt does not go with --vllm"),
        (("--vllm", "http://v", "--start", 0), "--start does not go with --vllm"),
        (("--url", "http://h", "--json", "--csv", "-"), "say one of them"),
        (("--url", "http://h", "--start", 3, "--end", 2), "expected an end behind the start"),
        (("--url", "h:80"), "expected one such as https://"),
        (("--url", "http://h", "none*.mp4"), "matches no file"),
    ],
)
def test_words_that_do_not_go_together(ivcp, words, message):
    done = ivcp("predict", *words, "a.mp4")

    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)


def test_progress_is_said_where_the_output_is_not_progress_itself(api, ivcp, caplog):
    with caplog.at_level(logging.INFO, logger="ivcp.tracking.progress"):
        ivcp("predict", "--url", api.url, "a.mp4")
        assert "videos classified" not in caplog.text
        ivcp("predict", "--url", api.url, "a.mp4", "c.mp4")
    assert "videos classified: 2 in " in caplog.text


def test_a_reader_that_has_enough_is_no_error(api):
    for number in range(200):
        Path(f"more-{number:03}.mp4").write_bytes(b"\x01" + bytes(2000))
    command = f"{IVCP} predict --url {api.url} --json 'more-*.mp4' | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)

    assert [json.loads(line)["video"] for line in done.stdout.splitlines()] == ["more-000.mp4", "more-001.mp4"]
    assert "rror" not in done.stderr
    assert "Broken" not in done.stderr
    assert len(questions(api)) < 200


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_ends_at_once_and_keeps_what_there_is(api, as_json):
    """The third video's answer never comes."""
    api.script += [say(200, json.dumps(DESCRIPTION).encode()), Handler.respond, Handler.respond, hang]
    words = [IVCP, "predict", "--url", api.url, "--concurrency", "1", "a.mp4", "c.mp4", "d.mp4", "b.mp4"]
    words += ["--json"] if as_json else []
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = "".join(process.stdout.readline() for _ in range(2)) if as_json else ""
    while len(questions(api)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)  # what was answered before reaches the table
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 130
    shown = begun + stdout
    assert "a.mp4" in shown
    assert "c.mp4" in shown
    assert "d.mp4" not in shown
    assert "interrupted after 2 of 4 videos" in stderr
    assert "Traceback" not in stderr


def test_a_busy_server_is_asked_again(api, ivcp):
    api.script += [say(200, json.dumps(DESCRIPTION).encode()), refuse(429, "rate_limited", retry_after="0")]
    assert ivcp("predict", "--url", api.url, "a.mp4").exit_code == 0
    assert len(questions(api)) == 2
