"""The text in which a run's settings travel."""

import pytest

from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.settings import config_from_settings, read_pasted

SETTINGS = {"model_name_or_path": "org/model", "dataset": "a, b", "learning_rate": 1e-5, "dataset_dir": "s3://b/a b"}
TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
MANY = {"train_tolerations": TOLERATIONS, "train_node_selector": {"pool": "gpu", "a/b": "1"}, "run_name": "训练 # 1: x"}


@pytest.mark.parametrize("more", [{}, MANY, {"served_prompt": 'What?\n\n it\'s  "this": # yes ' + "long " * 40}])
def test_it_can_be_copied_from_the_page_into_the_form_again(more):
    """Whose text box takes a space for each line end."""
    config = config_from_settings(SETTINGS | more)
    text = pipeline_arguments(config)["settings"]
    for pasted in (text, text.replace("\n", " ")):
        assert config_from_settings(read_pasted(pasted)) == config
