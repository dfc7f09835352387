import hmac
import logging
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ivcp.serving.keys import KeyFilesError, KeyLimits, KeyName, KeyRefusedError, KeyRing, ring

ALICE, OLGA = "key-of-alice-0123456789", "key-of-olga-0123456789"
Asks = Callable[[str], str]


def _refusal(keys: KeyRing, *request: str | None) -> KeyRefusedError:
    with pytest.raises(KeyRefusedError) as caught:
        keys.check(*request)  # type: ignore[arg-type]
    return caught.value


def test_both_headers_carry_a_key(keys: KeyRing):
    alice = KeyName("inference", "alice")
    assert keys.check("inference", f"Bearer {ALICE}", None) == alice
    assert keys.check("inference", f"bearer  {ALICE} ", None) == alice
    assert keys.check("inference", None, ALICE) == alice
    assert keys.check("inference", f"Bearer {ALICE}", ALICE) == alice
    assert keys.check("inference", "Basic dXNlcg==", ALICE) == alice  # of a proxy before the server
    assert str(alice) == "inference/alice"


@pytest.mark.parametrize(
    "headers", [(None, None), ("", ""), ("Bearer", None), ("Bearer ", " "), (ALICE, None), (f"Basic {ALICE}", None)]
)
def test_a_missing_key(keys: KeyRing, headers: tuple[str | None, str | None]):
    refused = _refusal(keys, "inference", *headers)
    assert refused.code == "key_missing"
    assert "Authorization: Bearer KEY" in str(refused)


@pytest.mark.parametrize(
    "key", ["wrong-key-0123456789", ALICE[:-1], ALICE + "x", ALICE.upper(), "ü" * 20, "\udcff", "*"]
)
def test_an_unknown_key_is_not_repeated(keys: KeyRing, key: str):
    refused = _refusal(keys, "inference", None, key)
    assert refused.code == "key_unknown"
    assert key == "*" or key not in str(refused)


def test_two_different_keys_are_none(keys: KeyRing):
    assert _refusal(keys, "inference", f"Bearer {ALICE}", OLGA).code == "key_unknown"


def test_an_operators_key_is_good_for_all_and_others_are_not(keys: KeyRing):
    olga = KeyName("operator", "olga")
    assert keys.check("operator", f"Bearer {OLGA}", None) == olga
    assert keys.check("inference", f"Bearer {OLGA}", None) == olga
    refused = _refusal(keys, "operator", f"Bearer {ALICE}", None)
    assert refused.code == "key_not_allowed"
    assert "the key 'alice' may ask for inference only: expected an operator's key" in str(refused)
    assert _refusal(keys, "operator", None, None).code == "key_missing"
    assert _refusal(keys, "operator", None, "wrong-key-0123456789").code == "key_unknown"


def test_without_keys_inference_is_open_and_the_rest_is_closed(folders: tuple[Path, Path]):
    keys = KeyRing(None, None)
    assert not keys.needs_key
    assert keys.check("inference", None, None) is None
    with keys.under_way(None):
        pass
    assert _refusal(keys, "operator", None, None).code == "key_missing"
    assert _refusal(keys, "operator", None, OLGA).code == "key_unknown"
    only_operators = KeyRing(None, folders[1])
    assert only_operators.check("inference", None, None) is None
    assert only_operators.check("operator", None, OLGA) == KeyName("operator", "olga")


def test_every_key_is_compared_whichever_matches(
    folders: tuple[Path, Path], clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    for number in range(20):
        (folders[0] / f"key{number:02}").write_text(f"number-{number:02}-0123456789")
    keys = KeyRing(*folders)
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(ring, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
    counts = set()
    for key in ("number-00-0123456789", "number-19-0123456789", ALICE, OLGA, "wrong", "n", "n" * 5000):
        compared.clear()
        try:
            keys.check("inference", None, key)
        except KeyRefusedError:
            assert key.startswith(("wrong", "n"))
        counts.add(len(compared))
        assert {len(one) for pair in compared for one in pair} == {32}
    assert counts == {22}


def test_no_key_is_in_memory_logs_or_messages(
    keys: KeyRing, folders: tuple[Path, Path], clock: list[float], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    (folders[0] / "bad").write_text("tiny-secret")
    clock[0] += 2
    refused = _refusal(keys, "inference", "Bearer guessed-secret-0123", None)
    shown = [repr(keys), str(vars(keys)), caplog.text, "".join(traceback.format_exception(refused)), *keys.problems]
    assert repr(keys) == "KeyRing(inference/alice, operator/olga)"
    for text in shown:
        assert not any(word in text for word in (ALICE, OLGA, "tiny-secret", "guessed-secret"))


def test_the_same_key_twice_is_a_mistake(folders: tuple[Path, Path]):
    (folders[0] / "bob").write_text(OLGA)
    with pytest.raises(KeyFilesError, match=r"inference/bob and operator/olga are the same key: give each its own"):
        KeyRing(*folders)


def test_changes_of_files_count_within_a_second(asks: Asks, folders: tuple[Path, Path], clock: list[float]):
    (folders[0] / "bob").write_text("key-of-bob-0123456789")
    (folders[0] / "alice").write_text("new-key-of-alice-0123456789")
    assert asks(ALICE) == "inference/alice"  # not looked at yet
    clock[0] += 0.9
    assert asks("key-of-bob-0123456789") == "key_unknown"
    clock[0] += 0.2
    assert asks("key-of-bob-0123456789") == "inference/bob"
    assert asks("new-key-of-alice-0123456789") == "inference/alice"
    assert asks(ALICE) == "key_unknown"
    (folders[0] / "bob").unlink()
    clock[0] += 1.1
    assert asks("key-of-bob-0123456789") == "key_unknown"


def test_files_that_did_not_change_are_not_read(asks: Asks, clock: list[float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ring, "read_keys", lambda *_: pytest.fail("read again"))
    clock[0] += 5
    assert asks(ALICE) == "inference/alice"


def _mounted(volume: Path, version: str, content: dict[str, str]) -> None:
    """What kubelet does to a secret's volume (`pkg/volume/util/atomic_writer.go`)."""
    before = (volume / "..data").readlink() if (volume / "..data").is_symlink() else None
    (volume / version).mkdir(parents=True)
    for name, key in content.items():
        (volume / version / name).write_text(key)
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(Path("..data", name))
    (volume / "..data_tmp").symlink_to(version)
    (volume / "..data_tmp").rename(volume / "..data")
    for link in [path for path in volume.iterdir() if not path.name.startswith("..") and path.name not in content]:
        link.unlink()
    if before is not None:
        shutil.rmtree(volume / before)


def test_a_mounted_secret_is_rotated(tmp_path: Path, clock: list[float]):
    _mounted(tmp_path / "keys", "..2026_11_29_10_00_00.1", {"alice": ALICE, "gone": "key-of-gone-0123456789"})
    keys = KeyRing(tmp_path / "keys", None)
    assert repr(keys) == "KeyRing(inference/alice, inference/gone)"
    _mounted(tmp_path / "keys", "..2026_11_29_11_00_00.2", {"alice": "new-" + ALICE, "bob": "key-of-bob-0123456789"})
    assert keys.check("inference", None, ALICE) is not None
    clock[0] += 1.1
    assert _refusal(keys, "inference", None, ALICE).code == "key_unknown"
    assert keys.check("inference", None, "new-" + ALICE) == KeyName("inference", "alice")
    assert keys.check("inference", None, "key-of-bob-0123456789") == KeyName("inference", "bob")
    assert _refusal(keys, "inference", None, "key-of-gone-0123456789").code == "key_unknown"
    assert keys.problems == []


@pytest.mark.parametrize("content", ["", "short", "two words 0123456789"])
def test_a_file_that_breaks_keeps_its_key_and_holds_up_no_other(
    asks: Asks,
    keys: KeyRing,
    folders: tuple[Path, Path],
    clock: list[float],
    content: str,
    caplog: pytest.LogCaptureFixture,
):
    (folders[0] / "alice").write_text(content)
    (folders[0] / "bob").write_text("key-of-bob-0123456789")
    for _ in range(3):
        clock[0] += 1.1
        assert asks(ALICE) == "inference/alice"
    assert asks("key-of-bob-0123456789") == "inference/bob"
    assert len(keys.problems) == 1
    assert [str(folders[0] / "alice") in record.getMessage() for record in caplog.records] == [True]  # once
    (folders[0] / "alice").write_text("new-" + ALICE)
    clock[0] += 1.1
    assert asks(ALICE) == "key_unknown"
    assert asks("new-" + ALICE) == "inference/alice"
    assert keys.problems == []


def test_a_volume_that_is_away_keeps_all_keys(
    asks: Asks, keys: KeyRing, folders: tuple[Path, Path], clock: list[float], caplog: pytest.LogCaptureFixture
):
    folders[0].rename(folders[0].with_name("away"))
    for _ in range(2):
        clock[0] += 1.1
        assert asks(ALICE) == "inference/alice"
    assert len(caplog.records) == 1
    folders[0].with_name("away").rename(folders[0])
    clock[0] += 1.1
    assert asks(ALICE) == "inference/alice"
    assert keys.problems == []


def test_when_all_keys_are_taken_away_none_is_good(
    asks: Asks, keys: KeyRing, folders: tuple[Path, Path], clock: list[float], caplog: pytest.LogCaptureFixture
):
    (folders[0] / "alice").unlink()
    clock[0] += 1.1
    assert asks(ALICE) == "key_unknown"
    assert keys.needs_key
    assert "holds no key" in caplog.text


def test_each_key_has_a_limit_of_its_own(folders: tuple[Path, Path], clock: list[float]):
    (folders[0] / "bob").write_text("key-of-bob-0123456789")
    keys = KeyRing(*folders, limits=KeyLimits(requests_per_minute=6, burst=2))
    assert [keys.check("inference", None, ALICE) for _ in range(2)]
    refused = _refusal(keys, "inference", None, ALICE)
    assert refused.code == "rate_limited"
    assert refused.retry_seconds == pytest.approx(10.0)
    assert str(refused) == "more than the 6 requests per minute that a key may ask: try again in 10.0 s"
    assert keys.check("inference", None, "key-of-bob-0123456789")
    clock[0] += 10.001
    assert keys.check("inference", None, ALICE)
    assert _refusal(keys, "inference", None, ALICE).code == "rate_limited"
    (folders[0] / "alice").write_text("new-" + ALICE)
    clock[0] += 1.1
    assert _refusal(keys, "inference", None, "new-" + ALICE).code == "rate_limited", "a new key is the same user"


def test_operators_routes_and_refused_keys_cost_nothing(folders: tuple[Path, Path], clock: list[float]):
    keys = KeyRing(*folders, limits=KeyLimits(requests_per_minute=60, burst=1))
    for _ in range(5):
        assert keys.check("operator", None, OLGA)
        assert _refusal(keys, "operator", None, ALICE).code == "key_not_allowed"
    assert keys.check("inference", None, ALICE)
    assert keys.check("inference", None, OLGA)


def test_requests_at_a_time_are_limited_per_key(folders: tuple[Path, Path], clock: list[float]):
    keys = KeyRing(*folders, limits=KeyLimits(max_concurrent=2))
    alice, olga = keys.check("inference", None, ALICE), keys.check("inference", None, OLGA)
    with keys.under_way(alice):
        with keys.under_way(alice):
            with (
                pytest.raises(KeyRefusedError, match="2 requests of this key are under way") as caught,
                keys.under_way(alice),
            ):
                pytest.fail("a third one")
            assert (caught.value.code, caught.value.retry_seconds) == ("rate_limited", 1.0)
            with keys.under_way(olga):
                pass
        with pytest.raises(RuntimeError), keys.under_way(alice):
            raise RuntimeError
        with keys.under_way(alice):
            pass


def test_what_is_under_way_is_counted_across_a_rotation(folders: tuple[Path, Path], clock: list[float]):
    keys = KeyRing(*folders, limits=KeyLimits(max_concurrent=1))
    alice = keys.check("inference", None, ALICE)
    with keys.under_way(alice):
        os.replace(folders[0] / "alice", folders[0] / "away")  # noqa: PTH105
        clock[0] += 1.1
        assert _refusal(keys, "operator", None, "wrong-key-0123456789").code == "key_unknown"
        os.replace(folders[0] / "away", folders[0] / "alice")  # noqa: PTH105
        clock[0] += 1.1
        alice = keys.check("inference", None, ALICE)
        with pytest.raises(KeyRefusedError), keys.under_way(alice):
            pytest.fail("a second one")
    with keys.under_way(alice):
        pass
