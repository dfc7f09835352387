"""ActivityNet's database."""

import json

from tests.unit.imports.layout_files import by_video, write

ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [{"parentName": "Root", "nodeName": "Dancing", "nodeId": 1, "parentId": 0}],
    "database": {
        "sJFgo9H6zNo": {
            "duration": 128.18,
            "subset": "training",
            "resolution": "854x480",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
            "annotations": [
                {"segment": [0.0, 12.08], "label": "Dancing"},
                {"segment": [20.5, 124.56], "label": "Fixing bicycle"},
            ],
        },
        "V1zhqaGFY2A": {
            "duration": 203.9,
            "subset": "validation",
            "annotations": [{"segment": [15.55, 201.87], "label": "Dancing"}],
        },
        "JDg--pjY5gg": {"duration": 67.9, "subset": "testing", "annotations": []},
    },
}


def test_activitynet(importer, videos, tmp_path):
    root = videos(["v_sJFgo9H6zNo.mp4", "val/V1zhqaGFY2A.mkv"])
    source = write(tmp_path / "activity_net.v1-3.min.json", json.dumps(ACTIVITYNET))
    annotations = importer("activitynet", source, videos=str(root))
    assert [(row.group, row.start_seconds, row.end_seconds) for row in annotations.rows] == [
        ("sJFgo9H6zNo", 0.0, 12.08),
        ("sJFgo9H6zNo", 20.5, 124.56),
        ("V1zhqaGFY2A", 15.55, 201.87),
    ]
    assert by_video(annotations)["V1zhqaGFY2A.mkv"][:2] == ("Dancing", "val")
