import pytest

from components.training.train import build_trainer


@pytest.fixture
def make_trainer(make_config, make_index, prepared_clips, tmp_path):
    def make(output_dir=None, **settings):
        config = make_config(**settings)
        clips = {"train": prepared_clips[:12], "val": prepared_clips[12:]}
        return build_trainer(config, index=make_index(), clips=clips, output_dir=output_dir or tmp_path / "adapter")

    return make
