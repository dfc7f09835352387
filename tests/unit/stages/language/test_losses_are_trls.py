"""Our losses and their gradients, of text, are those of TRL's trainers."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
import trl
from datasets import Dataset

from ivcp.models.processor import NO_LABEL
from ivcp.stages.language.log_probs import answer_log_probs, pair_log_probs, token_log_probs
from ivcp.stages.language.losses.kto import kl_of_mismatched, kto_loss
from ivcp.stages.language.losses.policy import group_advantages, grpo_loss
from ivcp.stages.language.losses.preference import PreferenceLoss
from ivcp.stages.language.losses.reward import reward_loss
from tests.unit.stages.language.text_models import PAIRS, moved, older_batch, text_model, tokenizer, trainer_arguments

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # TRL's own
TOLERANCE = 1e-5


def log_probs(model, input_ids, attention_mask, labels):
    states = model.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    return token_log_probs(states, labels, model.lm_head, chunk_tokens=7)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def check(model, ours, theirs):
    """Both are losses with their graphs."""
    assert ours.item() == pytest.approx(theirs.item(), abs=TOLERANCE)
    expected, found = gradients(model, theirs), gradients(model, ours)
    assert found.keys() == expected.keys()
    assert max(value.abs().max() for value in expected.values()) > 1e-3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=TOLERANCE, rtol=1e-4)


@pytest.fixture(scope="module")
def reference():
    return text_model(0)


def dpo_trainer(folder, reference, **settings):
    arguments = trl.DPOConfig(**trainer_arguments(folder), **settings)
    return trl.DPOTrainer(
        moved(copy.deepcopy(reference)),
        copy.deepcopy(reference),
        args=arguments,
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer(),
    )


def batch_of(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, NO_LABEL)
    return batch, (batch["input_ids"], batch["attention_mask"], labels)


@pytest.mark.parametrize("ld_alpha", [None, 0.3])
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo"])
def test_dpo(tmp_path, reference, kind, beta, ld_alpha):
    trainer = dpo_trainer(tmp_path, reference, loss_type=[kind], beta=beta, ld_alpha=ld_alpha)
    batch, inputs = batch_of(trainer)
    theirs = trainer.compute_loss(trainer.model, batch)
    with torch.no_grad():
        compared = pair_log_probs(log_probs(reference, *inputs), inputs[2], ld_alpha=ld_alpha)
    policy = pair_log_probs(log_probs(trainer.model, *inputs), inputs[2], ld_alpha=ld_alpha)
    check(trainer.model, PreferenceLoss(kind, beta)(policy, compared).mean(), theirs)


def test_kto(tmp_path, reference):
    rows = [
        {"prompt": pair["prompt"], "completion": pair["chosen" if is_good else "rejected"], "label": is_good}
        for pair, is_good in zip(PAIRS, (True, False, True, True), strict=True)
    ]
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    trainer = trl.KTOTrainer(
        moved(copy.deepcopy(reference), seed=3),
        copy.deepcopy(reference),
        args=trl.KTOConfig(**trainer_arguments(tmp_path), beta=0.4, **weights),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    batch, inputs = batch_of(trainer)
    others = batch["KL_input_ids"].masked_fill(batch["KL_completion_mask"] == 0, NO_LABEL)
    mismatched = (batch["KL_input_ids"], batch["KL_attention_mask"], others)

    def answers(model, of):
        return answer_log_probs(log_probs(model, *of), of[2])

    theirs = trainer.compute_loss(trainer.model, batch)
    with torch.no_grad():
        compared, kl = (
            answers(reference, inputs),
            kl_of_mismatched(answers(trainer.model, mismatched), answers(reference, mismatched)),
        )
    assert kl > 0.01, "else the test would not see it"
    is_desirable = torch.as_tensor(batch["label"])
    losses = kto_loss(answers(trainer.model, inputs), compared, is_desirable, kl=kl, beta=0.4, **weights)
    check(trainer.model, losses.mean(), theirs)


def test_simpo(tmp_path, reference):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    trainer = CPOTrainer(
        moved(copy.deepcopy(reference)),
        CPOConfig(**trainer_arguments(tmp_path), loss_type="simpo", cpo_alpha=0.0, simpo_gamma=0.7, beta=2.0),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer(),
    )
    policy, theirs = pairs_and(trainer)
    check(trainer.model, PreferenceLoss("simpo", 2.0, simpo_gamma=0.7)(policy, None).mean(), theirs)


def test_orpo(tmp_path, reference):
    """But for the chosen answer's own loss, which TRL takes over the prompt as well, and LLaMA-Factory does not."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    trainer = ORPOTrainer(
        moved(copy.deepcopy(reference)),
        ORPOConfig(**trainer_arguments(tmp_path), beta=0.3),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer(),
    )
    policy, theirs = pairs_and(trainer)
    own_loss = trainer.concatenated_forward(trainer.model, next(iter(trainer.get_train_dataloader())))[4]
    ours = (PreferenceLoss("orpo", 0.3)(policy, None) + policy.chosen.mean).mean()
    check(trainer.model, ours, theirs - own_loss)


def pairs_and(trainer):
    """Of a batch of TRL's older trainers: our log-probabilities of its pairs, and its loss."""
    batch, given, labels = older_batch(trainer)
    policy = pair_log_probs(log_probs(trainer.model, *given, labels), labels)
    return policy, trainer.compute_loss(trainer.model, batch)


def test_sft(tmp_path, reference):
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS]
    trainer = trl.SFTTrainer(
        moved(copy.deepcopy(reference)),
        trl.SFTConfig(**trainer_arguments(tmp_path)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = batch["input_ids"], batch["attention_mask"], batch["labels"]
    found = answer_log_probs(log_probs(trainer.model, *inputs), inputs[2])
    check(trainer.model, -found.total.sum() / found.num_tokens.sum(), trainer.compute_loss(trainer.model, dict(batch)))


def test_reward(tmp_path, reference):
    torch.manual_seed(3)
    config = copy.deepcopy(reference.config)
    config.num_labels = 1
    trainer = trl.RewardTrainer(
        transformers.Qwen2ForSequenceClassification(config),
        trl.RewardConfig(**trainer_arguments(tmp_path)),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    chosen, rejected = trainer.model(**batch).logits.squeeze(-1).chunk(2)
    check(trainer.model, reward_loss(chosen, rejected).mean(), trainer.compute_loss(trainer.model, dict(batch)))


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo(tmp_path, reference, beta):
    words, generator = tokenizer(), torch.Generator().manual_seed(5)
    trainer = trl.GRPOTrainer(
        moved(copy.deepcopy(reference)),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.GRPOConfig(**trainer_arguments(tmp_path), num_generations=4, loss_type="grpo", epsilon=0.1),
        train_dataset=Dataset.from_list([{"prompt": pair["prompt"]} for pair in PAIRS]),
        processing_class=words,
    )
    ids = torch.randint(3, len(words), (4, 11), generator=generator)
    mask = torch.arange(7).expand(4, 7) < torch.tensor([[7], [3], [5], [1]])
    labels = torch.cat((torch.full((4, 4), NO_LABEL), ids[:, 4:].masked_fill(~mask, NO_LABEL)), dim=1)
    inputs = ids, torch.cat((torch.ones(4, 4, dtype=torch.long), mask.long()), dim=1), labels
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0]), group_size=4)

    def answers(model):
        return log_probs(model, *inputs)[:, -7:]

    with torch.no_grad():
        old, compared = answers(moved(copy.deepcopy(reference), seed=2)), answers(reference)
    given = {
        "prompt_ids": ids[:, :4],
        "prompt_mask": torch.ones(4, 4, dtype=torch.long),
        "completion_ids": ids[:, 4:],
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": compared,
        "num_items_in_batch": mask.sum(),
    }
    trainer.current_gradient_accumulation_steps, trainer.beta = 1, beta  # it would load its reference from a hub
    theirs = trainer._compute_loss(trainer.model, given)
    policy = answers(trainer.model)
    assert ((policy - old).exp() - 1).abs()[mask].max() > 0.1, "some of it is clipped"
    ours = grpo_loss(policy, old, advantages, mask, reference=compared, beta=beta, low=0.1, high=0.1)
    check(trainer.model, ours, theirs)
