from dataclasses import replace

import numpy as np
import pytest
import torch

from ivcp.models.backbone import last_hidden_states
from ivcp.settings import ConfigError
from ivcp.stages.action_cls.collator import Mixup
from ivcp.training.build import training_samples
from ivcp.training.result import run_trainer
from tests.samples import batch_of, stage_with, with_answer


def pixels(sample):
    return sample.media[0].frames.astype(float)


def test_mixup_blends_frames_and_labels_with_one_share(prepared_clips):
    mixed, labels = Mixup(1.0, 3, seed=0)(prepared_clips[:6])

    assert torch.equal(labels.sum(dim=1), torch.ones(6))
    for clip, blended, share in zip(prepared_clips, mixed, labels, strict=False):
        own = clip.columns["label"]
        partners = [
            other
            for other in prepared_clips[:6]
            if np.abs(pixels(blended) - share[own].item() * pixels(clip)
                      - share[other.columns["label"]].item() * pixels(other)).max() < 1
            and other.columns["label"] != own
        ]  # fmt: skip
        assert partners or share.max() == 1


def test_the_same_batch_is_mixed_the_same_way(prepared_clips):
    first, again = (Mixup(0.4, 3, seed=0)(prepared_clips[:6]) for _ in range(2))
    other = Mixup(0.4, 3, seed=1)(prepared_clips[:6])

    assert torch.equal(first[1], again[1])
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(first[0], again[0], strict=True))
    assert not torch.equal(first[1], other[1])


def test_clips_of_other_shape_are_not_mixed(prepared_clips):
    clips = [
        clip.with_media([replace(clip.media[0], frames=clip.media[0].frames[: 2 + number])])
        for number, clip in enumerate(prepared_clips[:3])
    ]
    mixed, labels = Mixup(1.0, 3, seed=0)(clips)

    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(mixed, clips, strict=True))
    assert torch.equal(labels, torch.eye(3))


def test_mixup_trains_and_validation_is_never_mixed(make_trainer, prepared_clips):
    trainer = make_trainer(mixup_alpha=0.4, max_steps=2)
    run_trainer(trainer)

    assert trainer.predict(prepared_clips[12:]).label_ids.shape == (6,)
    [batch, *_] = trainer.get_train_dataloader()
    assert batch["labels"].shape == (3, 3)


def answered(clips, processor):
    texts = [f"It is {'abc'[clip.columns['label']]}.<|im_end|>" for clip in clips]
    return [
        with_answer(clip, processor.tokenizer.encode(text), start=1) for clip, text in zip(clips, texts, strict=True)
    ]


def test_the_answer_behind_the_token_is_learned_where_its_loss_has_a_weight(make_trainer, prepared_clips, tmp_path):
    def train(weight, name):
        trainer = make_trainer(
            output_dir=tmp_path / name,
            action_cls_token_loss_weight=weight,
            finetuning_type="full",
            learning_rate=3e-3,
            num_train_epochs=12,
            save_strategy="no",
            eval_strategy="no",
        )
        trainer.train_dataset = answered(trainer.train_dataset, trainer.sample_processor.processor)
        batch = batch_of(trainer.sample_processor, trainer.train_dataset[:4], whole=True)
        run_trainer(trainer)
        model = trainer.model.eval()
        vision = {k: v for k, v in batch.items() if k not in ("labels", "token_labels")}
        with torch.no_grad():
            states = last_hidden_states(model.backbone, **vision)
            return model._token_loss(states, batch["token_labels"]).item(), model(**vision).logits

    without, with_loss = train(0.0, "without"), train(1.0, "with")
    assert with_loss[0] < 0.5 * without[0]


def test_the_state_at_the_token_does_not_see_the_answer(make_trainer, prepared_clips):
    trainer = make_trainer()
    model, processor = trainer.model.eval(), trainer.sample_processor
    clips = answered(prepared_clips[:4], processor.processor)
    plain, longer = (batch_of(processor, clips, whole=flag) for flag in (False, True))

    assert longer["input_ids"].shape[1] > plain["input_ids"].shape[1]
    longer.pop("token_labels")
    with torch.no_grad():
        torch.testing.assert_close(model(**plain).logits, model(**longer).logits, atol=1e-5, rtol=0)


def test_a_loss_on_answers_that_do_not_exist_is_an_error(make_index):
    with pytest.raises(ConfigError, match="no conversation has an answer behind <ACTION>"):
        training_samples(stage_with(action_cls_token_loss_weight=0.1), make_index())
