"""The splits that earlier runs gave to groups: read before splits are cut, and written when the data can be used.

They lie in one file beside the data, so that every run on these data finds them. A million groups are read and written
line by line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from ivcp import storage
from ivcp.data.problems import AnnotationError
from ivcp.records import SPLITS
from ivcp.records.splits import SPLITS_FILE, GroupSplit, SplitsHeader
from ivcp.settings import DataConfig
from ivcp.validation.catalog import Catalog

log = logging.getLogger(__name__)
CONTENT_DIGITS = 16
_TABLES = (
    "CREATE TABLE kept_group (name TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID",
    "CREATE TABLE kept_content (content TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID",
)
# `place` is that of the split in SPLITS: the lowest one wins where a content has several.
_OURS = f"""
CREATE TABLE ours AS SELECT DISTINCT part.name AS name, clip.split AS split,
CASE clip.split {" ".join(f"WHEN '{split}' THEN {place}" for place, split in enumerate(SPLITS))} END AS place,
substr(video.sha256, 1, {CONTENT_DIGITS}) AS content
FROM clip JOIN part ON part.id = clip.part LEFT JOIN clip_video ON clip_video.clip = clip.id
    LEFT JOIN video ON video.id = clip_video.video
WHERE clip.given = 'train'
"""
_NEWS = """
SELECT COUNT(*) FROM ours
WHERE NOT EXISTS (SELECT 1 FROM kept_group WHERE kept_group.name = ours.name AND kept_group.place = ours.place)
OR ours.content IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM kept_content WHERE kept_content.content = ours.content AND kept_content.place = ours.place)
"""
_MOVED = "SELECT COUNT(DISTINCT name) FROM ours JOIN kept_group USING (name) WHERE ours.place <> kept_group.place"


def splits_uri(data: DataConfig) -> str:
    """Where the splits of groups are kept."""
    return data.splits_file or storage.join(data.dataset_dir, SPLITS_FILE)


def read_header(data: DataConfig) -> SplitsHeader:
    """The first line of the file, or what it is where there is none yet."""
    uri = splits_uri(data)
    if not storage.exists(uri):
        return SplitsHeader()
    with storage.local_path(uri).open(encoding="utf-8") as file:
        return _parse_header(uri, file.readline())


def load_kept_splits(catalog: Catalog, data: DataConfig) -> None:
    """Reads what earlier runs gave into the catalog's tables `kept_group` and `kept_content`.

    Where splits are to be cut and there is no file yet, an empty one is made: what cannot be kept is said before a
    video is decoded.

    Raises:
        AnnotationError: the file holds something else.
        OSError: it cannot be made.
    """
    for table in _TABLES:
        catalog.ask(table)
    uri = splits_uri(data)
    if storage.exists(uri):
        groups = _read_lines(uri, storage.local_path(uri))
        for group in groups:
            place = SPLITS.index(group.split)
            catalog.ask("INSERT OR REPLACE INTO kept_group VALUES (?, ?)", group.group, place)
            catalog.change(
                "INSERT INTO kept_content VALUES (?, ?) ON CONFLICT DO UPDATE SET place = MIN(place, excluded.place)",
                ((content, place) for content in group.contents),
            )
    elif data.test_size or data.val_size:
        _rewrite(uri, lambda old, new: _write(new, SplitsHeader(), ()) if old is None else _copy(old, new))


def keep_splits(catalog: Catalog, data: DataConfig) -> None:
    """Writes the splits of this run's groups for later ones; nothing where the file has them all.

    Raises:
        AnnotationError: another run gave one of these groups another split in the meantime.
        OSError: the file cannot be written, and splits were cut.
    """
    catalog.ask(_OURS)
    if not catalog.number(_NEWS):
        return
    for column in ("name", "content"):
        catalog.ask(f"CREATE INDEX ours_{column} ON ours ({column})")
    uri = splits_uri(data)
    moved = catalog.number(_MOVED)

    def add(old: Path | None, new: Path) -> None:
        resplits = 0
        if old is not None:
            with old.open(encoding="utf-8") as file:
                resplits = _parse_header(uri, file.readline()).resplits
        earlier = () if old is None else _read_lines(uri, old)
        _write(new, SplitsHeader(resplits=resplits + bool(moved)), _merged(catalog, earlier, uri))

    try:
        _rewrite(uri, add)
    except OSError as error:
        if data.test_size or data.val_size:
            raise
        log.warning("%s", error)
        return
    log.info("the split of each group is kept in %s%s", uri, f"; {moved} have another one than before" * bool(moved))


def _merged(catalog: Catalog, earlier: Iterable[GroupSplit], uri: str) -> Iterator[GroupSplit]:
    """The earlier lines with what this run knows, then its new groups; a content stands at the groups that have it."""
    catalog.ask("DROP TABLE IF EXISTS written")
    catalog.ask("CREATE TABLE written (name TEXT PRIMARY KEY) WITHOUT ROWID")
    for group in earlier:
        yield _updated(catalog, group, uri)
    rest = catalog.ask(
        "SELECT DISTINCT name, split FROM ours WHERE name NOT IN (SELECT name FROM written) ORDER BY name"
    )
    for name, split in rest:
        yield GroupSplit(group=name, split=split, contents=_contents(catalog, name))


def _updated(catalog: Catalog, group: GroupSplit, uri: str) -> GroupSplit:
    """An earlier line with what this run knows of its group."""
    place, elsewhere = SPLITS.index(group.split), []
    for content in group.contents:
        ours = catalog.ask("SELECT MIN(place) FROM ours WHERE content = ?", content).fetchone()[0]
        _check_known(catalog, "kept_content", content, place=place, ours=ours, group=group, uri=uri)
        if ours is None:
            elsewhere.append(content)
    ours = catalog.ask("SELECT MIN(place) FROM ours WHERE name = ?", group.group).fetchone()[0]
    _check_known(catalog, "kept_group", group.group, place=place, ours=ours, group=group, uri=uri)
    if ours is None:
        return group.model_copy(update={"contents": tuple(elsewhere)})
    catalog.ask("INSERT OR IGNORE INTO written VALUES (?)", group.group)
    contents = (*elsewhere, *_contents(catalog, group.group))
    return GroupSplit(group=group.group, split=SPLITS[ours], contents=contents)


def _check_known(
    catalog: Catalog, table: str, key: str, *, place: int, ours: int | None, group: GroupSplit, uri: str
) -> None:
    """Refuses a split that another run gave since this one read the file, where this run gives another one."""
    if ours in (None, place):
        return
    column = "name" if table == "kept_group" else "content"
    known = catalog.ask(f"SELECT place FROM {table} WHERE {column} = ?", key).fetchone()
    was_read = known is not None and (known[0] == place or (column == "content" and known[0] < place))
    if not was_read:
        raise AnnotationError(
            f"{uri}: while this run looked at the videos, another one gave group {group.group} to {group.split}, "
            f"{'which' if column == 'name' else 'of which a video'} is in {SPLITS[ours or 0]} here: run it again, it "
            "takes over what the other one gave"
        )


def _contents(catalog: Catalog, name: str) -> tuple[str, ...]:
    found = catalog.ask("SELECT DISTINCT content FROM ours WHERE name = ? AND content IS NOT NULL ORDER BY 1", name)
    return tuple(content for (content,) in found)


def _rewrite(uri: str, change: storage.Change) -> None:
    try:
        storage.rewrite(uri, change)
    except OSError as error:
        raise OSError(
            f"{uri} cannot be written ({error}): it keeps which group is in which split, so that no clip gets from "
            "training to test when rows change. Set splits_file to a file or s3:// object that can be written, the "
            "same one for all runs on these data"
        ) from error


def _read_lines(uri: str, path: Path) -> Iterator[GroupSplit]:
    with path.open(encoding="utf-8") as file:
        _parse_header(uri, file.readline())
        for number, line in enumerate(file, start=2):
            try:
                yield GroupSplit.model_validate_json(line)
            except ValidationError as error:
                raise AnnotationError(f"{uri} line {number} is no group with its split: {line[:80]!r}") from error


def _parse_header(uri: str, line: str) -> SplitsHeader:
    try:
        return SplitsHeader.model_validate_json(line)
    except ValidationError as error:
        raise AnnotationError(
            f"{uri} does not begin as a file of splits that this version reads ({line[:80]!r}): restore it, or name "
            "another place with splits_file"
        ) from error


def _write(path: Path, header: SplitsHeader, groups: Iterable[GroupSplit]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(header.model_dump_json() + "\n")
        file.writelines(group.model_dump_json() + "\n" for group in groups)


def _copy(old: Path, new: Path) -> None:
    new.write_bytes(old.read_bytes())
