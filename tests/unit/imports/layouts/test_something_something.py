"""Something-Something's labels and videos."""

import json

from tests.unit.imports.layout_files import by_video, write

SOMETHING = {
    "labels.json": {"Holding something": "1", "Approaching something with your camera": "0"},
    "train.json": [
        {
            "id": "78687",
            "label": "holding potato next to vicks",
            "template": "Holding [something]",
            "placeholders": ["a"],
        },
        {"id": "42326", "label": "a", "template": "Approaching [something] with your camera", "placeholders": ["tree"]},
    ],
    "validation.json": [{"id": "74225", "label": "a", "template": "Holding [something]", "placeholders": ["cube"]}],
    "test.json": [{"id": "1420"}],
}


def test_something_something(importer, videos, tmp_path):
    folder = tmp_path / "labels"
    for name, content in SOMETHING.items():
        write(folder / name, json.dumps(content))
    root = videos(f"20bn-something-something-v2/{number}.webm" for number in (78687, 42326, 74225, 1420))
    annotations = importer("something-something", folder, videos=str(root))
    assert annotations.labels.label_names == ("Approaching something with your camera", "Holding something")
    assert by_video(annotations)["74225.webm"][:2] == ("Holding something", "val")
    assert "1420.webm" not in by_video(annotations)
    write(folder / "test-answers.csv", "1420;Holding something\n")
    found = by_video(importer("something-something", folder, videos=str(root), overwrite=True))
    assert found["1420.webm"][:2] == ("Holding something", "test")
