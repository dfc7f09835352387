from pathlib import Path

from ivcp import storage
from tests.s3_api.server import S3Server


def test_an_object_is_made_changed_and_never_overwritten_by_who_did_not_read_it(s3: S3Server) -> None:
    uri = "s3://bucket/rewritten/lines.txt"

    def add(line: str) -> None:
        def change(old: Path | None, new: Path) -> None:
            new.write_text((old.read_text() if old else "") + f"{line}\n")

        storage.rewrite(uri, change)

    add("first")
    add("second")
    assert storage.read_text(uri) == "first\nsecond\n"

    interrupted = []

    def change(old: Path | None, new: Path) -> None:
        text = old.read_text() if old else ""
        if not interrupted:
            interrupted.append(text)
            add("of another run")
        new.write_text(text + "third\n")

    storage.rewrite(uri, change)
    assert storage.read_text(uri).split("\n") == ["first", "second", "of another run", "third", ""]
