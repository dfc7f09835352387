"""The losses of whole modules, of text, are those of TRL's trainers."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
import trl
from datasets import Dataset
from torch.nn.functional import pad

from ivcp.models.processor import NO_LABEL
from ivcp.settings import config_from_settings
from ivcp.stages.language.answers import PreferenceModule, RewardModule, TaggedModule
from ivcp.stages.language.module import LanguageModule
from tests.unit.stages.language.test_losses_are_trls import batch_of, check, dpo_trainer
from tests.unit.stages.language.text_models import PAIRS, moved, older_batch, text_model, tokenizer, trainer_arguments

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # TRL's own


def config_of(stage, **settings):
    return config_from_settings({"stage": stage, "finetuning_type": "full", "model_name_or_path": "x", **settings})


def compared(kind, model, reference, **settings):
    """A module that trains `model`, and whose start was `reference`."""
    module = kind(copy.deepcopy(reference), config_of("dpo", **settings))
    module.keep_start()
    module.backbone = model
    return module.train()


def test_sft(tmp_path):
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS]
    trainer = trl.SFTTrainer(
        moved(text_model(0)),
        trl.SFTConfig(**trainer_arguments(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    module = LanguageModule(trainer.model).train()
    ours = module(batch["input_ids"], batch["attention_mask"], token_labels=batch["labels"]).loss
    check(trainer.model, ours, trainer.compute_loss(trainer.model, dict(batch)))


@pytest.mark.parametrize("settings", [{}, {"pref_loss": "hinge"}, {"pref_loss": "ipo"}, {"ld_alpha": 0.3}])
def test_dpo(tmp_path, settings):
    reference = text_model(0)
    theirs = {
        "loss_type": [settings.get("pref_loss", "sigmoid")],
        "ld_alpha": settings.get("ld_alpha"),
    }
    trainer = dpo_trainer(tmp_path, reference, beta=0.3, **theirs)
    batch, (ids, mask, labels) = batch_of(trainer)
    module = compared(PreferenceModule, trainer.model, reference, pref_beta=0.3, **settings)
    output = module(ids, mask, token_labels=labels)
    check(trainer.model, output.loss, trainer.compute_loss(trainer.model, batch))
    assert module.numbers["rewards/margins"].shape == (len(PAIRS),)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_smoothed_labels(tmp_path, share):
    """TRL's sigmoid loss reads no label_smoothing any more; but of its robust one, (1 - s) A - s B over 1 - 2 s, and
    its sigmoid one, A, where B is A of the pair the other way round, (1 - s) A + s B is a sum.
    """
    reference = text_model(0)
    trainer = dpo_trainer(
        tmp_path,
        reference,
        beta=0.7,
        loss_type=["sigmoid", "robust"],
        loss_weights=[2 * (1 - share), -(1 - 2 * share)],
        label_smoothing=share,
    )
    batch, (ids, mask, labels) = batch_of(trainer)
    module = compared(PreferenceModule, trainer.model, reference, pref_beta=0.7, dpo_label_smoothing=share)
    found = module(ids, mask, token_labels=labels).loss
    plain = compared(PreferenceModule, trainer.model, reference, pref_beta=0.7)(ids, mask, token_labels=labels).loss
    assert abs(found.item() - plain.item()) > 1e-3
    check(trainer.model, found, trainer.compute_loss(trainer.model, batch))


def test_bco(tmp_path):
    """Of a first batch, where the mean reward of those before it is 0, as TRL takes it to be in all."""
    reference, weight = text_model(0), 0.6
    parts = {"loss_type": ["sigmoid", "bco_pair"], "loss_weights": [1 / (1 + weight), weight / (1 + weight)]}
    trainer = dpo_trainer(tmp_path, reference, beta=0.7, **parts)
    batch, (ids, mask, labels) = batch_of(trainer)
    module = compared(PreferenceModule, trainer.model, reference, pref_beta=0.7, pref_bco_weight=weight).eval()
    check(trainer.model, module(ids, mask, token_labels=labels).loss, trainer.compute_loss(trainer.model, batch))


def test_simpo(tmp_path):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    trainer = CPOTrainer(
        moved(text_model(0)),
        CPOConfig(**trainer_arguments(tmp_path), loss_type="simpo", cpo_alpha=0.0, simpo_gamma=0.7, beta=2.0),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer(),
    )
    batch, given, labels = older_batch(trainer)
    module = compared(PreferenceModule, trainer.model, text_model(0), pref_loss="simpo", pref_beta=2.0, simpo_gamma=0.7)
    assert module.reference is None
    ours = module(*given, token_labels=labels).loss
    check(trainer.model, ours, trainer.compute_loss(trainer.model, batch))


def test_orpo(tmp_path):
    """Of a pair whose prompt is one token: TRL takes the chosen answer's own loss over the prompt as well, which begins
    with the second token."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    trainer = ORPOTrainer(
        moved(text_model(0)),
        ORPOConfig(**trainer_arguments(tmp_path), beta=0.3),
        train_dataset=Dataset.from_list([{"prompt": "W", "chosen": " A person waves.", "rejected": " A dog."}]),
        processing_class=tokenizer(),
    )
    batch, given, labels = older_batch(trainer)
    assert (labels[:, 0] == NO_LABEL).all()
    assert (labels[:, 1] != NO_LABEL).all()
    module = compared(PreferenceModule, trainer.model, text_model(0), pref_loss="orpo", pref_beta=0.3)
    check(trainer.model, module(*given, token_labels=labels).loss, trainer.compute_loss(trainer.model, batch))


def test_rm(tmp_path):
    config = text_model(0).config
    config.num_labels = 1
    torch.manual_seed(3)
    trainer = trl.RewardTrainer(
        transformers.Qwen2ForSequenceClassification(config),
        trl.RewardConfig(**trainer_arguments(tmp_path)),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    module = RewardModule(trainer.model).train()
    module.value_head.weight = trainer.model.score.weight
    ours = module(batch["input_ids"], batch["attention_mask"]).loss
    check(trainer.model, ours, trainer.compute_loss(trainer.model, dict(batch)))


def test_kto(tmp_path):
    reference = text_model(0)
    rows = [
        {"prompt": pair["prompt"], "completion": pair["chosen" if is_good else "rejected"], "label": is_good}
        for pair, is_good in zip(PAIRS, (True, False, True, True), strict=True)
    ]
    trainer = trl.KTOTrainer(
        moved(copy.deepcopy(reference), seed=3),
        copy.deepcopy(reference),
        args=trl.KTOConfig(**trainer_arguments(tmp_path), beta=0.4, desirable_weight=1.0, undesirable_weight=1.5),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    batch, inputs = batch_of(trainer)
    others = batch["KL_input_ids"].masked_fill(batch["KL_completion_mask"] == 0, NO_LABEL)
    rounds = [inputs, (batch["KL_input_ids"], batch["KL_attention_mask"], others)]
    width = max(each[0].shape[1] for each in rounds)
    ids, mask, labels = (
        torch.cat([pad(each[place], (0, width - each[place].shape[1]), value=filler) for each in rounds])
        for place, filler in enumerate((0, 0, NO_LABEL))
    )
    module = compared(TaggedModule, trainer.model, reference, pref_beta=0.4, kto_rejected_weight=1.5)
    output = module(ids, mask, token_labels=labels, is_desirable=torch.as_tensor(batch["label"]))
    assert module.numbers["kl"].item() > 0.01, "else the test would not see it"
    check(trainer.model, output.loss, trainer.compute_loss(trainer.model, batch))
