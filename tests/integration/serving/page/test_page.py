"""The page as somebody uses it: in a real browser, before a real predictor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserType

from tests.conftest import REPOSITORY
from tests.integration.serving.page.browser import CAMERA_ALLOWED, FAKE_CAMERA, Visit, launched, visit
from tests.integration.serving.page.conftest import KEY, UNSURE_BELOW
from tests.integration.serving.predictor_process import RunningPredictor, running
from tests.ports import free_port, wait_for_port

pytestmark = pytest.mark.slow

Open = Callable[..., Visit]
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
CLIP, LONG = "a 'clip'.mp4", "long.mp4"


def run(command: str, folder: Path, **variables: str) -> dict[str, Any]:
    """What a command that the page shows answers, in a shell."""
    environment = {"PATH": "/usr/bin:/bin", "no_proxy": "127.0.0.1", **variables}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def shown_scores(visited: Visit) -> Mapping[str, str]:
    return dict(zip(visited.texts("#bars .class"), visited.texts("#bars .share"), strict=True))


def test_a_clip_is_answered_as_the_command_answers(open_page: Open, videos: Path):
    visited = open_page()
    visited.choose(videos / CLIP, length="0:03.0")
    assert not visited.page.is_visible("#modes")

    visited.classify("#frames li")

    answer = run(visited.page.inner_text("#command"), videos)
    assert visited.page.inner_text("#label") == answer["label_name"]
    assert shown_scores(visited) == {
        score["label_name"]: f"{round(100 * score['confidence'], 1):g}%" for score in answer["top"]
    }
    times = [f"0:{seconds:04.1f}" for seconds in answer["frame_seconds"]]
    assert [text.strip() for text in visited.texts("#frames li")] == times
    assert visited.page.evaluate("[...document.querySelectorAll('#frames img')].every(image => image.naturalWidth > 0)")
    visited.check_accessible()
    visited.check_quiet()


def test_the_demo_model_says_what_clips_show(browser: Browser, tmp_path: Path):
    summary = REPOSITORY / "runs" / "latest" / "summary.json"
    if not summary.is_file():
        pytest.skip("`make demo` has not been run here")
    clips = sorted((REPOSITORY / "data" / "sample" / "videos" / "test").iterdir(), reverse=True)
    first = {clip.stem.rpartition("_")[0]: clip for clip in clips}
    with running(json.loads(summary.read_text())["model_dir"], tmp_path / "log") as predictor:
        visited, shown = visit(browser, predictor.url), {}
        visited.page.locator("#columns").wait_for()
        for name, clip in first.items():
            visited.choose(clip)
            visited.classify("#frames li")
            shown[name] = visited.page.inner_text("#label")
        visited.page.context.close()

    assert len(first) == 11
    assert sum(name == label for name, label in shown.items()) >= 9, shown


@pytest.mark.parametrize(("language", "message"), [("en-GB", "The file is no video."), ("zh-CN", "该文件不是视频。")])
def test_a_text_is_refused_with_the_servers_reason(open_page: Open, videos: Path, language: str, message: str):
    visited = open_page(locale=language)
    visited.choose(videos / "notes.txt")

    with visited.page.expect_response("**/v1/predict") as answered:
        visited.classify("#problem")

    assert visited.page.inner_text("#problem").split("\n\n") == [message, answered.value.json()["detail"]]
    visited.check_accessible()
    visited.check_quiet(refused=True)


class TestTimeline:
    @pytest.fixture
    def visited(self, open_page: Open, videos: Path) -> Visit:
        visited = open_page()
        visited.page.evaluate(
            """counts = [];
            new MutationObserver(() => counts.push(document.querySelectorAll(".part").length))
                .observe(document.getElementById("parts"), { childList: true })"""
        )
        visited.choose(videos / LONG, length="0:40.0")
        assert visited.page.is_checked("input[value=timeline]")
        visited.classify("#segments li")
        return visited

    def test_the_band_has_the_apis_segments(self, visited: Visit, videos: Path):
        answer = run(visited.page.inner_text("#command"), videos)
        segments = answer["segments"]

        names = [segment["label_name"] or "unsure" for segment in segments]
        assert len(set(names)) > 2
        assert "unsure" in names
        assert visited.texts(".part span") == visited.texts("#segments .class") == names
        edges = visited.page.evaluate(
            "[...document.querySelectorAll('.part')].map(part => [part.style.left, part.style.width].map(parseFloat))"
        )
        length = answer["duration_seconds"]
        assert [edge * length / 100 for edge, _ in edges] == pytest.approx(
            [segment["start_seconds"] for segment in segments], abs=0.01
        )
        assert sum(width for _, width in edges) == pytest.approx(100, abs=0.1)
        visited.check_accessible()
        visited.check_quiet()

    def test_each_class_has_its_colour(self, visited: Visit):
        colours = visited.page.evaluate(
            """[...document.querySelectorAll(".part")].map(part => {
                const style = getComputedStyle(part);
                return [part.textContent, style.backgroundImage === "none" ? style.backgroundColor : "hatched"];
            })"""
        )
        of_class = dict(colours)
        assert len(of_class) == len(set(of_class.values())) > 1
        assert {tuple(each) for each in colours} == set(of_class.items())
        assert of_class["unsure"] == "hatched"
        assert {row.split(" · ")[0] for row in visited.texts("#legend li")} == set(of_class)

    def test_what_the_model_is_unsure_of_is_called_so(self, visited: Visit, videos: Path):
        windows = run(visited.page.inner_text("#command"), videos)["windows"]
        number = next(number for number, window in enumerate(windows) if window["unsure"])
        is_sure = next(number for number, window in enumerate(windows) if not window["unsure"])

        visited.page.focus("#band")
        for window, is_shown in ((number, True), (is_sure, False)):
            visited.page.keyboard.press("Home")
            for _ in range(window + 1 if window else 0):  # a window's middle is a second behind its start
                visited.page.keyboard.press("ArrowRight")
            assert visited.page.inner_text("#label") == windows[window]["label_name"]
            assert visited.page.is_visible("#unsure") == is_shown
            visited.check_accessible()
        lines = visited.page.evaluate(
            "[...document.querySelectorAll('.line')].map(line => parseFloat(line.style.left))"
        )
        assert lines == [100 * UNSURE_BELOW] * 3
        assert visited.page.inner_text("#threshold").startswith("The line is at 45%")

    def test_windows_are_drawn_as_they_come(self, visited: Visit):
        counts = visited.page.evaluate("counts")

        windows = int(visited.page.inner_text("#took").split()[0])
        assert windows == 39
        assert any(0 < count < windows for count in counts[:-1] if count != counts[-1])

    def test_a_click_seeks(self, visited: Visit):
        box = visited.page.locator("#band").bounding_box()
        assert box is not None

        visited.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)

        visited.page.wait_for_function("() => Math.abs(video.currentTime - 20) < 0.2 && !video.seeking")
        assert float(visited.page.get_attribute("#band", "aria-valuenow") or "") == pytest.approx(20, abs=0.2)
        start, end = visited.page.inner_text("#moment").split(" to ")
        assert float(start.removeprefix("0:")) <= 20 <= float(end.removeprefix("0:"))

    def test_keys_seek(self, visited: Visit):
        starts = [text.split("–")[0] for text in visited.texts("#segments .time")]
        visited.page.focus("#band")

        for key, expected in (("End", "0:40.0"), ("Home", "0:00.0"), ("ArrowRight", "0:01.0"), ("ArrowLeft", "0:00.0")):
            visited.page.keyboard.press(key)
            assert self._time(visited) == expected
        for start in starts[1:3]:
            visited.page.keyboard.press("PageDown")
            assert self._time(visited) == start
        visited.page.wait_for_function("time => Math.abs(video.currentTime - time) < 0.1", arg=_seconds(starts[2]))

    def _time(self, visited: Visit) -> str:
        return (visited.page.get_attribute("#band", "aria-valuetext") or "").rpartition(": ")[0]

    def test_the_cursor_moves_while_it_plays(self, visited: Visit):
        visited.page.evaluate("video.muted = true; video.play()")

        visited.page.wait_for_function("() => parseFloat(document.getElementById('cursor').style.left) > 1")
        left, time = visited.page.evaluate(
            "video.pause(), [parseFloat(document.getElementById('cursor').style.left), video.currentTime]"
        )
        assert left * 40 / 100 == pytest.approx(time, abs=0.5)

    def test_a_window_shows_its_frames(self, visited: Visit):
        visited.page.locator("#segments button").nth(1).click()
        verdict, moment = visited.page.inner_text("#verdict"), visited.page.inner_text("#moment")

        visited.page.click("#closer")
        visited.page.locator("#frames li").first.wait_for()

        start, end = (_seconds(time) for time in moment.split(" to "))
        times = [_seconds(text.strip()) for text in visited.texts("#frames li")]
        assert start <= times[0] < times[-1] <= end
        assert visited.page.inner_text("#status") == "Done: {}, {}.".format(*verdict.split())

    def test_the_whole_video_can_be_asked_about_instead(self, visited: Visit, videos: Path):
        visited.page.check("input[value=clip]")
        visited.page.click("#ask")
        visited.page.locator("#frames li").first.wait_for()

        assert not visited.page.is_visible("#timeline")
        assert visited.page.inner_text("#label") == run(visited.page.inner_text("#command"), videos)["label_name"]

    def test_it_can_be_cancelled(self, visited: Visit, predictor: RunningPredictor):
        visited.page.evaluate(
            """new MutationObserver(() => document.querySelector("#cancel:not([hidden])")?.click())
                .observe(document.getElementById("count"), { childList: true })"""
        )
        visited.page.click("#ask")

        visited.page.locator("#status", has_text="Cancelled.").wait_for()
        assert visited.page.is_visible("#ask")
        assert visited.texts("#segments li") == []


def _seconds(time: str) -> float:
    minutes, seconds = time.split(":")
    return 60 * int(minutes) + float(seconds)


def test_the_camera_records(open_page: Open):
    visited = open_page()
    visited.page.click("#record")
    visited.page.locator("#count", has_text="0:02").wait_for()
    visited.page.click("#record")
    visited.page.locator("#name", has_text="recording.").wait_for()
    visited.page.wait_for_function("() => document.activeElement.id === 'ask' && video.duration > 1.5")
    visited.page.evaluate("document.querySelector('input[value=clip]').click()")

    visited.page.click("#ask")
    visited.page.locator("#frames li").first.wait_for()

    assert visited.page.inner_text("#label") in ("sit_down", "stand_up", "wave")
    with visited.page.expect_download() as saved:
        visited.page.click("#save")
    assert saved.value.path().stat().st_size > 1000
    visited.check_quiet()


@pytest.mark.parametrize(
    ("flag", "message"), [(CAMERA_ALLOWED, "There is no camera."), (FAKE_CAMERA, "The camera was not allowed.")]
)
def test_without_a_camera_it_says_so(predictor: RunningPredictor, chromium: BrowserType, flag: str, message: str):
    with launched(chromium, flag) as browser:
        visited = visit(browser, predictor.url)
        visited.page.click("#record")

        visited.page.locator("#problem", has_text=message).wait_for()


def test_it_speaks_chinese(open_page: Open):
    visited = open_page(locale="zh-CN")
    assert visited.page.inner_text("h1") == "视频里是什么动作？"
    assert visited.page.get_attribute("html", "lang") == "zh-CN"

    visited.page.click("#language")
    visited.page.locator("h1", has_text="Which action is it?").wait_for()
    visited.page.reload()

    visited.page.locator("h1", has_text="Which action is it?").wait_for()
    visited.check_quiet()


def test_both_languages_say_the_same(open_page: Open):
    texts = open_page().page.evaluate("import('./page/texts.js').then(module => module.TEXTS)")

    def fields(text: str) -> list[str]:
        return sorted(part.split("}")[0] for part in text.split("{")[1:])

    assert texts["zh"].keys() == texts["en"].keys()
    assert {name: fields(text) for name, text in texts["zh"].items()} == {
        name: fields(text) for name, text in texts["en"].items()
    }
    assert {name for name in texts["en"] if texts["zh"][name] == texts["en"][name]} == {"size", "size_and_length"}


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_fits_a_phone(open_page: Open, videos: Path, colours: str):
    visited = open_page(color_scheme=colours, **PHONE)
    visited.check_width()
    visited.check_accessible()

    visited.choose(videos / LONG, length="0:40.0")
    visited.classify("#segments li")

    visited.check_width()
    visited.check_accessible()


class TestKeys:
    @pytest.fixture
    def visited(self, browser: Browser, locked_predictor: RunningPredictor) -> Visit:
        visited = visit(browser, locked_predictor.url)
        visited.page.locator("#key-form").wait_for()
        return visited

    def enter(self, visited: Visit, key: str) -> None:
        visited.page.locator("#key:focus").wait_for()
        visited.page.keyboard.type(key)
        visited.page.keyboard.press("Enter")

    def test_it_asks_for_a_key(self, visited: Visit):
        assert not visited.page.is_visible("#columns")
        visited.check_accessible()

        self.enter(visited, "not-the-key")
        visited.page.locator("#key-problem", has_text="The server does not know this key.").wait_for()
        self.enter(visited, KEY)
        visited.page.locator("#columns").wait_for()

        assert not visited.page.is_visible("#key-form")
        assert visited.page.evaluate("[Object.values(sessionStorage), Object.values(localStorage)]") == [[KEY], []]
        visited.check_quiet(refused=True)

    def test_an_address_is_read_by_the_server_alone(self, visited: Visit, other_server: str, videos: Path):
        self.enter(visited, KEY)
        visited.page.fill("#uri", f"{other_server}/{LONG}")
        visited.page.keyboard.press("Enter")
        visited.page.check("input[value=timeline]")
        visited.page.click("#ask")
        visited.page.locator("#segments li").first.wait_for()

        command = visited.page.inner_text("#command")
        assert KEY not in visited.page.content()
        answer = run(command, videos, IVCP_KEY=KEY)
        assert visited.texts(".part span") == [segment["label_name"] or "unsure" for segment in answer["segments"]]
        visited.check_quiet(refused=True)

    def test_what_is_too_large_is_not_sent(self, visited: Visit, videos: Path):
        self.enter(visited, KEY)
        visited.page.locator("#columns").wait_for()
        visited.choose(videos / "large.mp4")
        visited.page.click("#ask")

        visited.page.locator("#problem").wait_for()
        assert "large.mp4 has 1.5 MB; this server takes at most 1 MB" in visited.page.inner_text("#problem")
        assert not any(each.endswith("/v1/predict") for each in visited.requests)


def test_it_waits_for_the_model(browser: Browser, model_dir: Path):
    port = free_port()
    command = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir), "--port", str(port)]
    with subprocess.Popen([*command, "--num-decoders", "1"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port, seconds=300)
            visited = visit(browser, f"http://127.0.0.1:{port}")
            visited.page.locator("#waiting", has_text="not ready yet").wait_for()

            visited.page.locator("#columns").wait_for()

            assert not visited.page.is_visible("#waiting")
            visited.check_quiet(refused=True)
            visited.page.context.close()
        finally:
            process.terminate()
