"""Draws `docs/rooms.svg`: the rooms of the code, and which imports which.

    python docs/draw_rooms.py [FILE]

The rooms and their order are the layers in `pyproject.toml`, the imports are those that grimp reads in the code. An
import that goes up, or a module that lies in no room, is an error.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
KINDS = {"pipelines": "the chains", "components": "the steps' face for KFP", "ivcp": "the library"}
"""The three kinds of code, the highest first."""

_COLOURS = ("#1f5fa8", "#c2571a", "#2b8a3e", "#a61e4d", "#5f3dc4", "#8a6d00", "#0b7285", "#555555")
_BANDS = {"pipelines": "#fdf1e3", "components": "#eaf4ea", "ivcp": "#f1f4f9"}
_INK = "#1b2733"
_MARGIN = 2.9
"""Inches left of the highest room, for the titles."""
_ROW, _GAP, _LINE = 0.34, 0.17, 0.062
"""Inches between two rows, between the lines into two rooms, and between two lines into one room."""


class RoomsError(Exception):
    """The code does not fit the order of the rooms; the message names the modules."""


@dataclass(frozen=True, order=True)
class Import:
    """One room imports another."""

    source: str
    target: str


def read_rooms(pyproject: Path = ROOT / "pyproject.toml") -> list[str]:
    """The rooms as dotted names, the highest first."""
    contracts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return layers


def read_imports(rooms: Sequence[str]) -> set[Import]:
    """The imports between rooms, as they stand in the code.

    `ivcp/__init__.py` is the face of the library and lies in no room; what it imports is not counted.

    Raises:
        RoomsError: a module lies in no room.
    """
    import grimp

    graph = grimp.build_graph(*KINDS, cache_dir=None)
    homeless = sorted(module for module in graph.modules - {"ivcp"} if room_of(module, rooms) is None)
    if homeless:
        raise RoomsError(f"in no room of pyproject.toml's layers: {', '.join(homeless)}; add a line for each there")
    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            source, target = room_of(module, rooms), room_of(imported, rooms)
            if source and target and source != target:
                found.add(Import(source, target))
    return found


def room_of(module: str, rooms: Iterable[str]) -> str | None:
    """The room that a module lies in."""
    return next((room for room in rooms if module == room or module.startswith(f"{room}.")), None)


def upward(imports: Iterable[Import], rooms: Sequence[str]) -> list[Import]:
    """The imports that go up."""
    return sorted(each for each in imports if rooms.index(each.source) > rooms.index(each.target))


def draw(rooms: Sequence[str], imports: Iterable[Import], path: Path) -> None:
    """Writes the picture: rooms on a diagonal, an arrow to the right and down for each import."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "rooms", "font.family": "DejaVu Sans"}  # the same code, the same bytes
    from matplotlib import pyplot

    picture = _Layout.of(rooms, imports)
    figure = pyplot.figure(figsize=(picture.width, picture.height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.axis("off")
    _draw_bands(axes, picture)
    for each in picture.arrows:
        _draw_arrow(axes, picture, each)
    for room in rooms:
        _draw_room(axes, picture, room)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    pyplot.close(figure)


@dataclass(frozen=True)
class _Layout:
    """Where everything stands, in inches from the upper left corner."""

    rooms: Sequence[str]
    arrows: Sequence[Import]
    places: dict[Import, float]
    """Where an arrow goes down."""
    right: dict[str, float]
    """Where a room's box ends."""

    @classmethod
    def of(cls, rooms: Sequence[str], imports: Iterable[Import]) -> _Layout:
        at, places, right = _MARGIN, {}, {}
        arrows = sorted(imports, key=lambda each: (rooms.index(each.target), -rooms.index(each.source)))
        for room in rooms:
            at += _GAP
            for each in arrows:  # the nearest source first: then lines into one room do not cross
                if each.target == room:
                    at += _LINE
                    places[each] = at
            right[room] = at = at + _LINE
        return cls(rooms, arrows, places, right)

    @property
    def width(self) -> float:
        return max(self.right.values()) + 0.25

    @property
    def height(self) -> float:
        return len(self.rooms) * _ROW + 0.2

    def left(self, room: str) -> float:
        """Where a room's box begins: left of its name, and of the arrows into it."""
        arrows = [place - 0.06 for each, place in self.places.items() if each.target == room]
        return min([self.right[room] - 0.1 * len(_name(room)) - 0.14, *arrows])

    def y(self, room: str) -> float:
        return 0.1 + (self.rooms.index(room) + 0.5) * _ROW

    def colour(self, room: str) -> str:
        return _COLOURS[self.rooms.index(room) % len(_COLOURS)]


def _draw_bands(axes: Axes, picture: _Layout) -> None:
    for kind, title in KINDS.items():
        rows = [picture.y(room) for room in picture.rooms if room.partition(".")[0] == kind]
        top, bottom = min(rows) - _ROW / 2, max(rows) + _ROW / 2
        axes.axhspan(top + 0.02, bottom - 0.02, color=_BANDS[kind], zorder=0)
        if len(rows) == 1:
            axes.text(0.15, rows[0], title, size=12, va="center", color=_INK)
        else:
            axes.text(0.15, bottom - 1.2, f"{kind}/", size=22, weight="bold", va="center", color=_INK)
            axes.text(0.15, bottom - 0.8, title, size=14, va="center", color=_INK)
    note = "An arrow leads from a room to one that it imports,\nin the colour of the room that imports."
    axes.text(0.15, picture.height - 0.45, note, size=10.5, va="center", color=_INK)


def _draw_arrow(axes: Axes, picture: _Layout, each: Import) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    x, y, down = picture.places[each], picture.y(each.source), picture.y(each.target) - 0.115
    bend = 0.1
    points = [(picture.right[each.source], y), (x - bend, y), (x, y), (x, y + bend), (x, down)]
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO]
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(points, codes),
            arrowstyle="-|>,head_length=2.6,head_width=1.3",
            color=picture.colour(each.source),
            linewidth=0.8,
            joinstyle="miter",
            zorder=2,
        )
    )


def _draw_room(axes: Axes, picture: _Layout, room: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, right, y = picture.left(room), picture.right[room], picture.y(room)
    box = FancyBboxPatch(
        (left, y - 0.115),
        right - left,
        0.23,
        boxstyle="round,pad=0,rounding_size=0.04",
        facecolor=picture.colour(room),
        edgecolor="white",
        linewidth=0.8,
        zorder=3,
    )
    axes.add_patch(box)
    middle = (left + right) / 2
    axes.text(
        middle, y, _name(room), size=11, weight="bold", ha="center", va="center_baseline", color="white", zorder=4
    )


def _name(room: str) -> str:
    return room.removeprefix("ivcp.")


def main() -> None:
    """Draws the picture, or says which imports go up."""
    rooms = read_rooms()
    try:
        imports = read_imports(rooms)
    except RoomsError as error:
        sys.exit(str(error))
    wrong = upward(imports, rooms)
    if wrong:
        sys.exit("imports that go up: " + ", ".join(f"{each.source} -> {each.target}" for each in wrong))
    draw(rooms, imports, Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)


if __name__ == "__main__":
    main()
