"""Log-probabilities without logits of a whole batch."""

import pytest
import torch
from torch import nn

from ivcp.models.processor import NO_LABEL
from ivcp.stages.language.log_probs import answer_log_probs, pair_log_probs, token_log_probs

VOCABULARY, HIDDEN = 50, 8


@pytest.fixture
def batch():
    torch.manual_seed(0)
    states, head = torch.randn(3, 9, HIDDEN, requires_grad=True), nn.Linear(HIDDEN, VOCABULARY)
    labels = torch.randint(VOCABULARY, (3, 9))
    labels[:, :3] = NO_LABEL
    labels[1, 5:] = NO_LABEL
    return states, labels, head


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 1000])
def test_they_are_those_of_whole_logits(batch, chunk_tokens, softcap):
    states, labels, head = batch
    logits = head(states) if softcap is None else softcap * torch.tanh(head(states) / softcap)
    shares = logits[:, :-1].log_softmax(dim=-1)
    learned = labels[:, 1:] != NO_LABEL
    expected = shares.gather(2, labels[:, 1:].clamp(min=0).unsqueeze(2)).squeeze(2) * learned

    found = token_log_probs(states, labels, head, softcap=softcap, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    wanted = [*head.parameters(), states]
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), wanted),
        torch.autograd.grad((expected * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_no_more_logits_are_kept_than_those_of_a_chunk(batch):
    states, labels, head = batch
    sizes, kept = [], []

    def noting(chunk):
        sizes.append(len(chunk))
        return head(chunk)

    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor
    ):
        found = token_log_probs(states, labels, noting, chunk_tokens=4)
    assert not [shape for shape in kept if VOCABULARY in shape]
    assert (max(sizes), sum(sizes)) == (4, int((labels[:, 1:] != NO_LABEL).sum()))
    forward = len(sizes)
    found.sum().backward()
    assert len(sizes) == 2 * forward, "computed again, chunk by chunk"


def test_nothing_to_predict(batch):
    states, labels, head = batch
    found = token_log_probs(states, torch.full_like(labels, NO_LABEL), head)
    assert (found.shape, found.abs().sum().item()) == ((3, 8), 0.0)


def test_sums_and_means(batch):
    _, labels, _ = batch
    log_probs = torch.where(labels[:, 1:] != NO_LABEL, -1.5, 0.0)
    answers = answer_log_probs(log_probs, labels)
    assert answers.num_tokens.tolist() == [6, 2, 6]
    assert answers.mean.tolist() == [-1.5] * 3
    assert answers[slice(1, 2)].total.tolist() == [-3.0]


def test_the_tokens_by_which_an_answer_is_longer_count_less():
    labels = torch.tensor([[NO_LABEL, 1, 1, 1, 1], [NO_LABEL, 1, 1, NO_LABEL, NO_LABEL]])
    log_probs = torch.tensor([[-1.0, -2.0, -4.0, -8.0], [-16.0, -32.0, 0.0, 0.0]])
    pairs = pair_log_probs(log_probs, labels, ld_alpha=0.5)
    assert (pairs.chosen.total.item(), pairs.rejected.total.item()) == (-1 - 2 - 0.5 * 12, -48)
    assert pair_log_probs(log_probs, labels).chosen.total.item() == -15
