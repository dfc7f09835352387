from dataclasses import replace

import numpy as np
import pytest
import torch

from ivcp.settings import ConfigError
from ivcp.stages.action_cls.collator import mixup
from ivcp.training.train import run_trainer, training_clips


def test_mixup_blends_frames_and_labels_with_one_share(prepared_clips):
    mixed, labels = mixup(prepared_clips[:6], alpha=1.0, num_classes=3, seed=0)

    assert torch.equal(labels.sum(dim=1), torch.ones(6))
    for clip, blended, share in zip(prepared_clips, mixed, labels, strict=False):
        partners = [
            other
            for other in prepared_clips[:6]
            if np.abs(blended.frames - share[clip.label].item() * clip.frames.astype(float)
                      - share[other.label].item() * other.frames.astype(float)).max() < 1
            and other.label != clip.label
        ]  # fmt: skip
        assert partners or share.max() == 1


def test_the_same_batch_is_mixed_the_same_way(prepared_clips):
    first, again = (mixup(prepared_clips[:6], alpha=0.4, num_classes=3, seed=0) for _ in range(2))
    other = mixup(prepared_clips[:6], alpha=0.4, num_classes=3, seed=1)

    assert torch.equal(first[1], again[1])
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(first[0], again[0], strict=True))
    assert not torch.equal(first[1], other[1])


def test_clips_of_other_shape_are_not_mixed(prepared_clips):
    clips = [replace(clip, frames=clip.frames[: 2 + number]) for number, clip in enumerate(prepared_clips[:3])]
    mixed, labels = mixup(clips, alpha=1.0, num_classes=3, seed=0)

    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(mixed, clips, strict=True))
    assert torch.equal(labels, torch.eye(3))


def test_mixup_trains_and_validation_is_never_mixed(make_trainer, prepared_clips):
    trainer = make_trainer(mixup_alpha=0.4, max_steps=2)
    run_trainer(trainer)

    assert trainer.predict(prepared_clips[12:]).label_ids.shape == (6,)
    [batch, *_] = trainer.get_train_dataloader()
    assert batch["labels"].shape == (3, 3)


def answered(clips, processor):
    ids = [processor.tokenizer.encode(f"It is {'abc'[clip.label]}.<|im_end|>") for clip in clips]
    return [
        replace(clip, answer_ids=np.array(tokens, dtype=np.int64), answer_start=1)
        for clip, tokens in zip(clips, ids, strict=True)
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
        trainer.train_dataset = answered(trainer.train_dataset, trainer.clip_processor.processor)
        batch = trainer.clip_processor.collate(trainer.train_dataset[:4], with_answers=True)
        run_trainer(trainer)
        model = trainer.model.eval()
        vision = {k: v for k, v in batch.items() if k not in ("labels", "answer_labels")}
        with torch.no_grad():
            states = model.token_states(**vision)
            return model._token_loss(states, batch["answer_labels"]).item(), model(**vision).logits

    without, with_loss = train(0.0, "without"), train(1.0, "with")
    assert with_loss[0] < 0.5 * without[0]


def test_the_state_at_the_token_does_not_see_the_answer(make_trainer, prepared_clips):
    trainer = make_trainer()
    model, processor = trainer.model.eval(), trainer.clip_processor
    clips = answered(prepared_clips[:4], processor.processor)
    plain, longer = (processor.collate(clips, with_answers=flag) for flag in (False, True))

    assert longer["input_ids"].shape[1] > plain["input_ids"].shape[1]
    longer.pop("answer_labels")
    with torch.no_grad():
        torch.testing.assert_close(model(**plain).logits, model(**longer).logits, atol=1e-5, rtol=0)


def test_a_loss_on_answers_that_do_not_exist_is_an_error(make_config, make_index):
    with pytest.raises(ConfigError, match="no conversation has an answer behind <ACTION>"):
        training_clips(make_config(action_cls_token_loss_weight=0.1), make_index())
