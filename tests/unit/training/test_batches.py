import itertools

import numpy as np
import pytest
from torch.utils.data import DataLoader

from ivcp.data.prepared.batches import BudgetError, PlannedBatches
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.training.result import run_trainer
from ivcp.training.train import train_model


def lengths_of(num_clips=500, seed=0):
    return np.random.default_rng(seed).integers(20, 400, num_clips)


def by_tokens(lengths=None, **settings):
    return PlannedBatches(lengths_of() if lengths is None else lengths, clips_per_batch=8, **settings)


def test_every_clip_comes_once_and_no_batch_exceeds_the_budget():
    batches = by_tokens(tokens_per_batch=2000)

    for epoch in range(3):
        plan = batches.plan(epoch)
        assert sorted(itertools.chain(*plan)) == list(range(500))
        assert len(plan) == len(batches)
        assert max(len(batch) * batches.lengths[batch].max() for batch in plan) <= 2000


def test_clips_of_like_length_share_a_batch():
    """Batches of eight at random pad 30 % or more of their tokens here."""
    grouped, random = by_tokens(tokens_per_batch=2000), by_tokens()

    assert grouped.padding_share(0) < 0.05
    assert random.padding_share(0) > 0.3
    sizes = [len(batch) for batch in grouped.plan(0)]
    assert min(sizes) <= 5
    assert max(sizes) > 40


def test_a_plan_depends_on_seed_and_epoch_alone():
    batches = by_tokens(tokens_per_batch=2000, seed=1)

    assert list(batches.plan(2)) == list(by_tokens(tokens_per_batch=2000, seed=1).plan(2))
    assert list(batches.plan(0)) != list(batches.plan(1))
    assert list(batches.plan(0)) != list(by_tokens(tokens_per_batch=2000, seed=2).plan(0))
    assert list(batches) == list(batches.plan(0))
    batches.set_epoch(1)
    assert list(batches) == list(batches.plan(1))


def test_clips_meet_others_in_each_epoch():
    batches = by_tokens(tokens_per_batch=2000)
    pairs = [
        {frozenset(pair) for batch in batches.plan(epoch) for pair in itertools.combinations(batch, 2)}
        for epoch in range(2)
    ]
    assert len(pairs[0] & pairs[1]) < 0.8 * len(pairs[0])


@pytest.mark.parametrize("num_processes", [2, 3, 7])
@pytest.mark.parametrize("settings", [{"tokens_per_batch": 2000}, {}])
def test_processes_share_the_clips_in_as_many_steps(num_processes, settings):
    ranks = [by_tokens(**settings, rank=rank, num_processes=num_processes) for rank in range(num_processes)]

    assert len({len(rank) for rank in ranks}) == 1
    assert {len(list(rank)) for rank in ranks} == {len(ranks[0])}
    assert sorted(clip for rank in ranks for batch in rank for clip in batch) == list(range(500))


@pytest.mark.parametrize(("num_processes", "num_workers"), [(1, 2), (2, 0), (3, 1), (4, 2)])
def test_ranks_and_workers_read_each_clip_once(sharded_index, num_processes, num_workers):
    """Twelve clips in three shards, a whole number of batches for each number of processes."""
    clips = PreparedSamples(sharded_index, "train")
    read = []
    for rank in range(num_processes):
        batches = PlannedBatches(
            clips.token_lengths(prompts_only=True), clips_per_batch=1, rank=rank, num_processes=num_processes
        )
        loader = DataLoader(clips, batch_sampler=batches, num_workers=num_workers, collate_fn=list)
        read.append([clip.sample_id for batch in loader for clip in batch])

    assert len({len(ids) for ids in read}) == 1
    assert sorted(itertools.chain(*read)) == sorted(clip.sample_id for clip in clips)
    shards = {clip_id: number // 5 for number, clip_id in enumerate(clip.sample_id for clip in clips)}
    assert len({shards[clip_id] for clip_id in read[0]}) > 1  # no rank is bound to a shard


def test_a_plan_takes_a_few_bytes_per_clip():
    plan = by_tokens(lengths_of(20_000), tokens_per_batch=2000).plan(0)
    assert sum(array.nbytes for array in (plan.clips, plan.starts, plan.sizes)) < 16 * 20_000


def test_more_processes_than_clips_repeat_some():
    ranks = [by_tokens(lengths_of(3), tokens_per_batch=400, rank=rank, num_processes=5) for rank in range(5)]

    assert [len(list(rank)) for rank in ranks] == [1] * 5
    assert {clip for rank in ranks for batch in rank for clip in batch} == {0, 1, 2}


@pytest.mark.parametrize("settings", [{"tokens_per_batch": 2000}, {}])
def test_balanced_classes_are_equally_frequent(settings):
    labels = np.array([0] * 450 + [1] * 40 + [3] * 10)
    batches = by_tokens(labels=labels, num_processes=2, **settings)

    drawn = [clip for epoch in range(20) for batch in batches.plan(epoch) for clip in batch]
    shares = np.bincount(labels[drawn], minlength=4) / len(drawn)
    assert shares == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.02)
    assert {len(batches.plan(epoch)) for epoch in range(20)} == {2 * len(batches)}
    assert len(drawn) == pytest.approx(20 * 500, rel=0.05)


def test_a_clip_above_the_budget_is_refused_with_both_numbers():
    with pytest.raises(BudgetError, match=r"tokens_per_batch = 100, but the longest clip has 398 tokens \(399 of 500"):
        by_tokens(tokens_per_batch=100)


def test_lengths_and_labels_are_read_without_frames(mixed_index, monkeypatch):
    clips = PreparedSamples(mixed_index, "train")
    expected = [(len(clip.input_ids), clip.columns["label"]) for clip in clips]

    monkeypatch.delattr("ivcp.data.prepared.reader.decode_sample")
    assert list(zip(clips.token_lengths(prompts_only=True), clips.column("label"), strict=True)) == expected
    assert len({length for length, _ in expected}) == 2


def batches_of(trainer):
    """Clip ids of each batch as training takes them."""
    taken = []
    collate = trainer.data_collator

    def noting(clips):
        taken.append([clip.sample_id for clip in clips])
        return collate(clips)

    trainer.data_collator = trainer.train_collate = noting
    return taken


@pytest.mark.parametrize("settings", [{}, {"balanced_sampling": True}, {"cache_vision_features": False}])
def test_resuming_inside_an_epoch_goes_on_with_the_same_batches(train_on_shards, mixed_index, tmp_path, settings):
    settings = {"tokens_per_batch": 80, "eval_strategy": "no", "save_steps": 1, "num_train_epochs": 3} | settings
    whole = train_on_shards(index=mixed_index, **settings)
    expected = batches_of(whole)
    run_trainer(whole)
    steps = len(whole.batches)
    start = steps + 2  # in the middle of the second epoch
    resumed = train_on_shards(output_dir=tmp_path / "resumed", index=mixed_index, **settings)
    taken = batches_of(resumed)
    run_trainer(resumed, resume_from=str(tmp_path / "adapter" / f"checkpoint-{start}"))

    train_batches = [batch for batch in expected if batch[0] in {f"clips:{number}" for number in range(12)}]
    assert len(train_batches) == 3 * steps
    followed = [batch for batch in taken if batch[0] in {f"clips:{number}" for number in range(12)}]
    assert followed == train_batches[start:]
    assert steps >= 4


def test_clips_drawn_several_times_are_changed_in_several_ways():
    labels = np.array([0] * 99 + [1])
    batches = by_tokens(lengths_of(100), labels=labels, numbers_draws=True)
    items = [item for batch in batches for item in batch]

    draws = sorted(item // 100 for item in items if item % 100 == 99)
    assert len(draws) > 30
    assert draws == list(range(len(draws)))
    assert [[item % 100 for item in batch] for batch in batches] == list(batches.plan(0))


def test_drawn_clips_are_augmented(make_config, mixed_index, tmp_path):
    settings = {"tokens_per_batch": 80, "balanced_sampling": True, "augment_crop": 0.5, "dataloader_num_workers": 1}
    result = train_model(make_config(**settings), index=mixed_index, output_dir=tmp_path / "adapter")

    assert result.epochs == 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_clip_weighs_the_same(train_on_shards, mixed_index, tmp_path, accumulation):
    """The mean loss of an epoch in which nothing is learned is that of all clips in one batch, and so are gradients."""
    settings = {
        "learning_rate": 1e-12,
        "lora_dropout": 0.0,
        "eval_strategy": "no",
        "save_strategy": "no",
        "num_train_epochs": 1,
    }
    means = []
    for number, batches in enumerate(
        ({"per_device_train_batch_size": 12}, {"tokens_per_batch": 120, "gradient_accumulation_steps": accumulation})
    ):
        trainer = train_on_shards(output_dir=tmp_path / str(number), index=mixed_index, **settings, **batches)
        if number:
            sizes = [len(batch) for batch in trainer.batches.plan(0)]
            assert min(sizes) < max(sizes)
            assert len(sizes) % accumulation == 0
        means.append(run_trainer(trainer).train_loss)
    assert means[1] == pytest.approx(means[0], rel=1e-5)


def test_a_budget_below_the_longest_clip_fails_before_training(train_on_shards):
    with pytest.raises(BudgetError, match="tokens_per_batch = 10, but the longest clip has"):
        train_on_shards(tokens_per_batch=10)
