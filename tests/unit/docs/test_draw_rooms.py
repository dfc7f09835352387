"""The picture's rooms and imports are those of the code, and none goes up."""

import pytest

from docs.draw_rooms import Import, RoomsError, read_imports, read_rooms, room_of, upward


@pytest.fixture(scope="module")
def rooms():
    return read_rooms()


def test_no_import_goes_up(rooms):
    imports = read_imports(rooms)

    assert {Import("pipelines", "components"), Import("ivcp.training", "ivcp.stages")} <= imports
    assert upward(imports, rooms) == []


def test_an_import_that_goes_up_is_found(rooms):
    wrong = Import("ivcp.storage", "ivcp.training")

    assert upward([wrong, Import("ivcp.training", "ivcp.storage")], rooms) == [wrong]


def test_a_module_without_a_room_is_an_error(rooms):
    with pytest.raises(RoomsError, match=r"ivcp\.storage\.atomic"):
        read_imports([room for room in rooms if room != "ivcp.storage"])


def test_a_room_is_not_found_by_half_of_its_name(rooms):
    assert room_of("ivcp.data.prepared.reader", rooms) == "ivcp.data"
    assert room_of("ivcp.database", rooms) is None
