"""UCF101's lists."""

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from tests.unit.imports.layout_files import by_video, write

UCF = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n",
    "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\r\n"
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi 1\r\nHandstandPushups/v_HandStandPushups_g25_c01.avi 2\r\n",
    "testlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\r\n",
}


@pytest.fixture
def ucf_lists(tmp_path):
    for name, text in UCF.items():
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists" / name).write_bytes(text.encode())
    return tmp_path / "lists"


def test_ucf101(importer, videos, ucf_lists):
    root = videos(line.split()[0] for name in UCF for line in UCF[name].splitlines() if "/" in line)
    found = by_video(importer("ucf101", ucf_lists, videos=str(root), options=LayoutOptions(split_number=2)))
    assert found["v_ApplyEyeMakeup_g01_c02.avi"] == ("ApplyEyeMakeup", "train", "v_ApplyEyeMakeup_g01", None, None)
    assert found["v_HandStandPushups_g25_c01.avi"][:3] == ("HandstandPushups", "train", "v_HandStandPushups_g25")
    assert found["v_ApplyEyeMakeup_g08_c01.avi"][1] == "test"
    assert importer.result.rows == {"mine_train": 3, "mine_test": 1}
    with pytest.raises(ImportRefusedError, match=r"trainlist01\.txt does not exist"):
        importer("ucf101", ucf_lists, videos=str(root), overwrite=True)


@pytest.mark.parametrize("number", ["1", "9", "x"])
def test_ucf101_with_another_id(importer, ucf_lists, number):
    (ucf_lists / "trainlist01.txt").write_text(f"HandstandPushups/v_HandStandPushups_g25_c01.avi {number}\n")
    write(ucf_lists / "testlist01.txt", "")
    with pytest.raises(AnnotationError, match=f"row 0: HandstandPushups has the id {number}, in classInd.txt"):
        importer("ucf101", ucf_lists)


def test_ucf101_as_mp4(importer, videos, ucf_lists):
    root = videos(line.split()[0].replace(".avi", ".mp4") for n in UCF for line in UCF[n].splitlines() if "/" in line)
    found = by_video(importer("ucf101", ucf_lists, videos=str(root), options=LayoutOptions(split_number=2)))
    assert "v_ApplyEyeMakeup_g08_c01.mp4" in found
