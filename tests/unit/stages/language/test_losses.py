"""What the losses must do where no other library says the numbers."""

import math

import pytest
import torch

from ivcp.stages.language.log_probs import AnswerLogProbs, PairLogProbs
from ivcp.stages.language.losses import policy
from ivcp.stages.language.losses.preference import WITHOUT_REFERENCE, PreferenceLoss, _log_one_minus_exp

KINDS = ("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo")


def pairs(chosen, rejected, tokens=(4, 4)):
    def of(values, count):
        return AnswerLogProbs(torch.tensor(values, requires_grad=True), torch.full((len(values),), count))

    return PairLogProbs(of(chosen, tokens[0]), of(rejected, tokens[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_raises_the_chosen_answer_and_lowers_the_rejected(kind):
    reference = None if kind in WITHOUT_REFERENCE else pairs([-5.0, -9.0], [-6.0, -7.0])
    found = pairs([-5.1, -8.8], [-6.0, -7.1])
    loss = PreferenceLoss(kind, beta=0.3)
    losses = loss(found, reference)
    assert losses.shape == (2,)
    losses.sum().backward()
    assert (found.chosen.total.grad < 0).all()
    assert (found.rejected.total.grad > 0).all()
    assert not any(values.requires_grad for values in loss.rewards(found, reference))


def test_smoothing_is_the_loss_of_pairs_of_which_some_are_the_wrong_way_round():
    one, other = pairs([-5.0], [-6.0]), pairs([-6.0], [-5.0])
    zero = pairs([0.0], [0.0])
    plain = PreferenceLoss("sigmoid", 0.5)
    smoothed = PreferenceLoss("sigmoid", 0.5, label_smoothing=0.2)(one, zero)
    torch.testing.assert_close(smoothed, 0.8 * plain(one, zero) + 0.2 * plain(other, zero))


def test_the_chosen_answers_own_loss_is_added():
    found, reference = pairs([-8.0], [-6.0]), pairs([-7.0], [-6.0])
    plain, added = PreferenceLoss("sigmoid")(found, reference), PreferenceLoss("sigmoid", ftx=0.5)(found, reference)
    torch.testing.assert_close(added - plain, torch.tensor([0.5 * 8 / 4]))
    orpo = [PreferenceLoss("orpo", ftx=ftx)(found, None) for ftx in (0.0, 0.5)]
    assert torch.equal(*orpo), "it has it already"


def test_binary_classification_is_against_the_mean_reward_so_far():
    """LLaMA-Factory's `pref_bco_weight`: (loss + w · bco) / (1 + w), with a running mean over batches."""
    loss = PreferenceLoss("sigmoid", beta=1.0, bco_weight=2.0)
    zero, rewards = pairs([0.0], [0.0]), []
    for chosen, rejected in ((1.0, -3.0), (2.0, 0.0)):
        rewards.append((chosen + rejected) / 2)
        mean = sum(rewards) / len(rewards)
        sigmoid = math.log1p(math.exp(-(chosen - rejected)))
        bco = math.log1p(math.exp(-(chosen - mean))) + math.log1p(math.exp(rejected - mean))
        found = loss(pairs([chosen], [rejected]), zero)
        assert found.item() == pytest.approx((sigmoid + 2 * bco) / 3, abs=1e-6)


def test_odds_of_answers_that_are_nearly_certain_or_impossible():
    values = torch.tensor([-1e-30, -1e-4, -0.5, -1.0, -50.0, -1e4], dtype=torch.float64, requires_grad=True)
    found = _log_one_minus_exp(values)
    assert found[1:4].tolist() == pytest.approx([math.log(-math.expm1(x)) for x in (-1e-4, -0.5, -1.0)], abs=1e-9)
    found.sum().backward()
    assert found.isfinite().all()
    assert values.grad.isfinite().all()


def test_equal_rewards_teach_nothing():
    assert policy.group_advantages(torch.full((4,), 0.7), group_size=2).tolist() == [0.0] * 4
    rewards = torch.tensor([1.0, 0.0, 5.0, 3.0])
    found = policy.group_advantages(rewards, group_size=2, scales=False)
    assert found.tolist() == [0.5, -0.5, 1.0, -1.0]


def test_advantages_are_those_of_the_sum():
    """With gamma = lam = 1 an advantage is what is still earned, less the value."""
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    rewards = torch.tensor([[0.1, 0.2, 1.0], [0.3, 2.0, 0.0]])
    values = torch.tensor([[0.5, 0.4, 0.3], [0.2, 0.1, 9.0]])
    advantages, returns = policy.generalized_advantages(rewards, values, mask, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[1.3, 1.2, 1.0], [2.3, 2.0, 0.0]]))
    torch.testing.assert_close(advantages, (returns - values) * mask)
    one_step, _ = policy.generalized_advantages(rewards, values, mask, lam=0.0)
    torch.testing.assert_close(one_step[0], torch.tensor([0.1 + 0.4 - 0.5, 0.2 + 0.3 - 0.4, 1.0 - 0.3]))


def test_the_last_token_earns_the_score():
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    ours, theirs = torch.full((2, 3), -1.0), torch.full((2, 3), -1.5)
    found = policy.token_rewards(torch.tensor([2.0, -1.0]), ours, theirs, mask, kl_coef=0.2)
    torch.testing.assert_close(found, torch.tensor([[-0.1, -0.1, 1.9], [-0.1, -1.1, 0.0]]))


def test_a_value_may_move_by_the_clip_only():
    values = torch.tensor([[1.0, 1.0]], requires_grad=True)
    old, returns, mask = torch.tensor([[0.0, 0.9]]), torch.tensor([[2.0, 2.0]]), torch.ones(1, 2)
    loss = policy.value_loss(values, old, returns, mask, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * ((0.2 - 2) ** 2 + 1.0) / 2)
    loss.backward()
    assert values.grad[0, 0] == 0
    assert values.grad[0, 1] < 0


def test_whitened():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]])
    found = policy.whitened(values, mask)
    chosen = found[mask.bool()]
    assert (chosen.mean().item(), chosen.std(unbiased=False).item()) == pytest.approx((0, 1), abs=1e-5)
    assert found[0, 2] == 0
    assert policy.whitened(values, mask, keeps_mean=True)[mask.bool()].mean().item() == pytest.approx(3, abs=1e-5)
