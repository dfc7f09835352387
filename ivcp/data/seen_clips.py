"""Which clips a model has seen: kept beside its weights, so that it is never measured on them.

A clip is known by the contents of its videos and by its group: a model that was trained on any of them has seen it. All
are 64-bit hashes: two of a million clips agree by chance once in 37 million data sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.storage.atomic import replacing

SEEN_CLIPS_FILE = "seen_clips.arrow"
_FORMAT_VERSION = 1
_SCHEMA = pa.schema(
    [
        ("use", pa.dictionary(pa.int8(), pa.string())),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("identity", pa.uint64()),
    ]
)
_UNKNOWN = 0
"""Identity of a video that was not hashed: equal to none."""
Identities = NDArray[np.uint64]


def identity_of_content(sha256: str | None) -> int:
    """What a video's content is known by; null is of a video that was not hashed."""
    return int(sha256[:16], 16) if sha256 else _UNKNOWN


def identity_of_group(group: str | None) -> int:
    """What a group is known by."""
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest()) if group else _UNKNOWN


@dataclass(frozen=True)
class ClipIdentities:
    """What clips are known by."""

    contents: Identities
    """Of each clip's first video, (clips,)."""
    groups: Identities
    """Of each clip's group, (clips,)."""
    more_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Whose the further videos and images are, (media,): places of clips."""
    more: Identities = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    """Their contents, (media,)."""

    @classmethod
    def of(cls, clips: Sequence[tuple[str | None, str | None]]) -> Self:
        """Of clips that are given by their video's sha256 and their group."""
        return cls(
            np.array([identity_of_content(sha256) for sha256, _ in clips], dtype=np.uint64),
            np.array([identity_of_group(group) for _, group in clips], dtype=np.uint64),
        )

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, chosen: NDArray[np.int64]) -> ClipIdentities:
        """Of some clips, each once, in another order."""
        places = np.full(len(self), -1, dtype=np.int64)
        places[chosen] = np.arange(len(chosen))
        owners = places[self.more_of]
        return ClipIdentities(self.contents[chosen], self.groups[chosen], owners[owners >= 0], self.more[owners >= 0])

    @property
    def all_contents(self) -> Identities:
        """The contents of all videos and images."""
        return np.concatenate((self.contents, self.more))

    @property
    def clusters(self) -> NDArray[np.uint64]:
        """What clips that resemble each other share, (clips,): the group; one without a group resembles no other."""
        own = np.arange(1, len(self) + 1, dtype=np.uint64)
        return np.where(self.groups == _UNKNOWN, own, self.groups)

    def among(self, others: ClipIdentities) -> NDArray[np.bool_]:
        """Whether a content or the group of each is one of `others`, (clips,)."""
        known = others.all_contents
        is_seen = _is_in(self.contents, known) | _is_in(self.groups, others.groups)
        is_seen[self.more_of[_is_in(self.more, known)]] = True
        return is_seen

    def joined(self, others: ClipIdentities) -> ClipIdentities:
        """Each content and each group of both, once, in order."""
        contents = np.union1d(self.all_contents, others.all_contents)
        return ClipIdentities(contents, np.union1d(self.groups, others.groups))


def _is_in(identities: Identities, known: Identities) -> NDArray[np.bool_]:
    return np.asarray(np.isin(identities, known) & (identities != _UNKNOWN))


def _none() -> ClipIdentities:
    return ClipIdentities.of(())


@dataclass(frozen=True)
class SeenClips:
    """What a model was trained on, and what its checkpoint was chosen by."""

    trained: ClipIdentities = field(default_factory=_none)
    selected: ClipIdentities = field(default_factory=_none)
    is_complete: bool = True
    """Whether that is all: not where it goes back to a model of which it is not known."""

    @classmethod
    def of_directory(cls, directory: Path) -> SeenClips:
        """What the model of an adapter or model directory has seen; nothing is known of one without the file."""
        path = directory / SEEN_CLIPS_FILE
        return cls.read(path) if path.is_file() else cls(is_complete=False)

    def joined(self, other: SeenClips) -> SeenClips:
        """What one model has seen that comes from both."""
        return SeenClips(
            self.trained.joined(other.trained),
            self.selected.joined(other.selected),
            self.is_complete and other.is_complete,
        )

    def write(self, path: Path) -> None:
        """Writes an Arrow file, whole or not at all: ten bytes for each content and each group."""
        uses = {"trained": self.trained.joined(_none()), "selected": self.selected.joined(_none())}
        parts = [
            (use, kind, values)
            for use, clips in uses.items()
            for kind, values in (("content", clips.contents), ("group", clips.groups))
        ]
        columns = [
            _repeated([use for use, _, _ in parts], [len(values) for _, _, values in parts]),
            _repeated([kind for _, kind, _ in parts], [len(values) for _, _, values in parts]),
            pa.array(np.concatenate([values for _, _, values in parts]), type=pa.uint64()),
        ]
        described = {"format_version": str(_FORMAT_VERSION), "is_complete": str(self.is_complete).lower()}
        schema = _SCHEMA.with_metadata(described)
        with replacing(path) as partial, pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))

    @classmethod
    def read(cls, path: Path) -> SeenClips:
        """Reads what `write` wrote.

        Raises:
            ValueError: the file is damaged, or of a newer version.
        """
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            described = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            version, is_complete = int(described["format_version"]), described["is_complete"] == "true"
            uses, kinds = (table[name].cast(pa.string()).to_numpy() for name in ("use", "kind"))
            identities = table["identity"].to_numpy()
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): copy the directory again, or train again") from error
        if version > _FORMAT_VERSION:
            raise ValueError(
                f"{path} has format_version {version}, this version of ivcp reads {_FORMAT_VERSION} and earlier: "
                "install the version that wrote it, or a later one"
            )
        trained, selected = (
            ClipIdentities(*(identities[(uses == use) & (kinds == kind)] for kind in ("content", "group")))
            for use in ("trained", "selected")
        )
        return cls(trained, selected, is_complete)


def _repeated(names: Sequence[str], counts: Sequence[int]) -> pa.Array:
    known = sorted(set(names))
    codes = np.repeat(np.array([known.index(name) for name in names], dtype=np.int8), counts)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(known))
