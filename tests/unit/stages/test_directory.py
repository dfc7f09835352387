import pytest

from ivcp.models.backbone_files import ModelFilesError
from ivcp.stages.directory import check_complete
from tests.models import save_tiny_classifier


@pytest.mark.parametrize("name", ["model.safetensors", "action_decoder.safetensors"])
def test_a_file_of_weights_that_was_cut_off_is_named(tmp_path, name):
    directory = save_tiny_classifier(tmp_path / "model")
    check_complete(directory)
    file = directory / name
    with file.open("r+b") as weights:
        weights.truncate(file.stat().st_size - 1)

    with pytest.raises(ModelFilesError, match=rf"is damaged: {name} has [\d,]+ of [\d,]+ bytes"):
        check_complete(directory)
