import inspect
import re

import pytest
from transformers import Trainer

from ivcp.training.loop.resumption import EPOCHS_OVERRIDDEN, EpochTrainer
from ivcp.training.loop.trainer import OVERRIDDEN, StageTrainer

SIGNATURES = {
    "_save": ["output_dir=None", "state_dict=None"],
    "_save_checkpoint": ["model", "trial"],
    "_save_optimizer_and_scheduler": ["output_dir"],
    "_get_grad_norm": ["model", "grad_norm=None"],
    "_prepare_inputs": ["inputs"],
    "_init_training_state": [
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ],
    "_run_epoch": [
        "model",
        "epoch",
        "train_dataloader",
        "steps_in_epoch",
        "num_update_steps_per_epoch",
        "trial",
        "ignore_keys_for_eval",
        "start_time",
        "resume_from_checkpoint",
        "epochs_trained",
        "steps_trained_in_current_epoch",
    ],
    "_prepare_for_training": ["max_steps", "train_dataloader", "resume_from_checkpoint"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model=None"],
    "_finalize_training": ["trial", "num_train_samples", "start_time"],
    "_load_best_model": [],
}
"""Parameters of transformers' private methods that `StageTrainer` overrides, as it was written for them."""


def parameters(method):
    _, *own = inspect.signature(method).parameters.values()
    return [each.name if each.default is each.empty else f"{each.name}={each.default}" for each in own]


def test_only_these_private_methods_of_transformers_are_overridden():
    def private(trainer):
        return {name for name in vars(trainer) if re.match(r"_[^_]", name) and hasattr(Trainer, name)}

    assert private(StageTrainer) == set(OVERRIDDEN)
    assert private(EpochTrainer) == set(EPOCHS_OVERRIDDEN)
    assert set(SIGNATURES) == {*OVERRIDDEN, *EPOCHS_OVERRIDDEN}


@pytest.mark.parametrize("name", SIGNATURES)
def test_transformers_has_them_with_the_parameters_we_were_written_for(name):
    assert parameters(getattr(Trainer, name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", SIGNATURES)
def test_transformers_calls_them(name):
    assert f"self.{name}(" in inspect.getsource(Trainer)
