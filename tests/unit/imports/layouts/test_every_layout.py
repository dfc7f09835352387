from pathlib import Path

from ivcp.imports.layouts import LAYOUTS

FOLDER = Path(__file__).parent


def test_every_layout_is_tried_here():
    files = [FOLDER.parent / "test_tables.py", *FOLDER.glob("test_*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert {word for word in text.split('"') if word in LAYOUTS} == set(LAYOUTS)
