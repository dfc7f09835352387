"""HMDB51's lists."""

from tests.unit.imports.layout_files import by_video, write


def test_hmdb51(importer, videos, tmp_path):
    brush = ["April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "Brushing_Hair_with_Beth_brush_hair_h_cm_np1_le_goo_0.avi"]
    ride = [
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_ba_med_0.avi",
        "AdvancedBikeRidin_ride_bike_f_cm_np1_fr_med_2.avi",
    ]
    root = videos([*(f"brush_hair/{name}" for name in brush), *(f"ride_bike/{name}" for name in ride)])
    lists = tmp_path / "testTrainMulti_7030_splits"
    write(lists / "brush_hair_test_split1.txt", f"{brush[0]} 1 \n{brush[1]} 2 \n")
    write(lists / "ride_bike_test_split1.txt", f"{ride[0]} 1 \n{ride[1]} 0 \n")
    write(lists / "brush_hair_test_split2.txt", f"{brush[0]} 2 \n")
    found = by_video(importer("hmdb51", lists, videos=str(root)))
    assert found == {
        brush[0]: ("brush_hair", "train", "brush_hair/April_09", None, None),
        brush[1]: ("brush_hair", "test", "brush_hair/Brushing_Hair_with_Beth", None, None),
        ride[0]: ("ride_bike", "train", "ride_bike/#437_How_To_Ride_A_Bike", None, None),
    }
    assert any(note.startswith("1 videos are in no part") for note in importer.result.notes)
