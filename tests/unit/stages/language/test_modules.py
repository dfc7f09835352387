"""What the modules of the language stages compute, by other ways to the same numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers

from ivcp.models.backbone import language_model_of
from ivcp.models.positions import RopePositions
from ivcp.models.processor import NO_LABEL
from ivcp.settings import ConfigError
from ivcp.stages.registry import stage_of
from tests.language import answer_rows, encoded, index_of, language_config, processor_of, sample_of, samples_of
from tests.tiny_families import FAMILIES, build_tiny_family


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("modules") / "base", "qwen2_vl")


def built(base, stage_name, *, std=0.05, **settings):
    """A stage, its module behind some steps, and what makes its batches."""
    config = language_config(base, stage_name, **settings)
    stage, processor = stage_of(config), processor_of(base)
    torch.manual_seed(0)
    module = stage.build(index_of(config, {"train": 4}), processor)
    module.keep_start()
    for name, value in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=std)
    positions = RopePositions.of(language_model_of(module.backbone))
    collate = stage.collator(module, processor, positions=positions, training=True)
    return stage, module.eval(), processor, collate


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_the_models_own_logits(tmp_path, family):
    base = build_tiny_family(tmp_path / family, family)
    stage, module, processor, collate = built(base, "sft")
    batch = collate([sample_of(stage, processor, number) for number in (0, 1)])
    output = module(**batch)
    model = language_model_of(module.backbone)
    given = {name: value for name, value in batch.items() if name not in ("token_labels", "num_learned")}
    if "rope_positions" in given:
        given["position_ids"] = given.pop("rope_positions").transpose(0, 1)
    with torch.no_grad():
        logits = model(**given).logits.float()
    wanted = batch["token_labels"][:, 1:]
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), wanted, ignore_index=NO_LABEL)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    right = ((logits[:, :-1].argmax(dim=-1) == wanted).sum(dim=1) / (wanted != NO_LABEL).sum(dim=1)).tolist()
    assert output.logits[:, 1].tolist() == pytest.approx(right)


@pytest.mark.parametrize("stage_name", ["pt", "sft"])
def test_a_batch_is_the_mean_over_the_tokens_of_its_samples(base, stage_name):
    stage, module, processor, collate = built(base, stage_name)
    samples = samples_of(stage.config, processor, range(4))
    singles = [collate([sample]) for sample in samples]
    counts = torch.cat([each["num_learned"] for each in singles])
    assert len(set(counts.tolist())) > 1
    losses = torch.stack([module(**each).loss for each in singles])
    expected = (losses * counts).sum() / counts.sum()
    output = module(**collate(samples))
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    metrics = stage.metrics(output.logits.detach().numpy(), counts.numpy())
    assert metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert metrics["perplexity"] == pytest.approx(expected.exp().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("stage_name", "settings"),
    [("rm", {}), *(("dpo", {"pref_loss": kind}) for kind in ("sigmoid", "hinge", "ipo", "orpo", "simpo"))],
)
def test_a_batch_is_the_mean_over_its_pairs(base, stage_name, settings):
    _, module, processor, collate = built(base, stage_name, **settings)
    samples = samples_of(language_config(base, stage_name), processor, range(4))
    losses = [module(**collate([sample])).loss.item() for sample in samples]
    assert max(losses) - min(losses) > 1e-4
    assert module(**collate(samples)).loss.item() == pytest.approx(sum(losses) / 4, abs=1e-5)


@pytest.mark.parametrize("stage_name", ["sft", "dpo", "kto"])
def test_texts_without_media_are_read_beside_videos_and_alone(base, stage_name):
    stage, module, processor, collate = built(base, stage_name)
    texts = [sample_of(stage, processor, number, kinds=()) for number in (0, 1)]
    videos = [sample_of(stage, processor, number) for number in (0, 1)]
    assert not any(sample.media for sample in texts)
    alone, together = module(**collate(texts)), module(**collate([*texts, *videos]))
    torch.testing.assert_close(together.logits[:2], alone.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.logits[2:], module(**collate(videos)).logits, atol=1e-5, rtol=0)


def test_the_reference_is_the_base_below_the_adapter(base):
    """With an adapter that changes nothing, no answer is preferred: the loss is log 2."""
    _, still, processor, collate = built(base, "dpo", std=0.0)
    samples = samples_of(language_config(base, "dpo"), processor, range(4))
    assert still(**collate(samples)).loss.item() == pytest.approx(0.693147, abs=1e-5)
    _, moved, _, collate = built(base, "dpo")
    output = moved(**collate(samples))
    assert abs(output.loss.item() - 0.693147) > 1e-3
    assert all(value.requires_grad for name, value in moved.named_parameters() if "lora_" in name)

    _, told, _, _ = built(base, "dpo", ref_model=str(base))
    assert told(**collate(samples)).loss.item() == pytest.approx(output.loss.item(), abs=1e-5)


@pytest.mark.parametrize("method", [{"finetuning_type": "full"}, {"finetuning_type": "freeze"}])
def test_the_reference_of_full_weights_is_the_start(base, method):
    _, module, processor, collate = built(base, "dpo", **method)
    samples = samples_of(language_config(base, "dpo"), processor, range(4))
    assert module(**collate(samples)).loss.item() == pytest.approx(0.693147, abs=1e-5)
    before = module.state_dict()
    with torch.no_grad():
        for value in module.parameters():
            if value.requires_grad:
                value += 0.05 * torch.randn_like(value)
    assert abs(module(**collate(samples)).loss.item() - 0.693147) > 1e-3
    assert module.state_dict().keys() == before.keys(), "the reference is no part of what is saved"


def test_another_model_is_the_reference(base, tmp_path):
    other = build_tiny_family(tmp_path / "other", "qwen2_vl", seed=5)
    _, module, processor, collate = built(base, "dpo", ref_model=str(other), std=0.0)
    samples = samples_of(language_config(base, "dpo"), processor, range(4))
    loss = module(**collate(samples)).loss.item()
    assert abs(loss - 0.693147) > 1e-3
    assert not module._sees_alike
    kept = collate(encoded(module, processor, samples))
    with pytest.raises(ConfigError, match=r"ref_model has another vision tower .* cache_vision_features: false"):
        module(**kept)


def test_a_reference_with_another_vocabulary_or_of_another_family_is_refused(base, tmp_path):
    larger = transformers.AutoModelForImageTextToText.from_pretrained(base)
    larger.resize_token_embeddings(700)
    larger.save_pretrained(tmp_path / "larger")
    with pytest.raises(ConfigError, match=r"ref_model has a vocabulary of 700 tokens, .* the same tokenizer"):
        built(base, "dpo", ref_model=str(tmp_path / "larger"))
    other = build_tiny_family(tmp_path / "other", "qwen3_vl")
    with pytest.raises(ConfigError, match=r"ref_model is a qwen3_vl model, which cannot see what a qwen2_vl model is"):
        built(base, "dpo", ref_model=str(other))


def test_validation_leaves_the_mean_reward_as_it_is(base):
    stage, module, processor, collate = built(base, "dpo", pref_bco_weight=0.5)
    batch = collate(samples_of(stage.config, processor, range(4)))
    first = module.train()(**batch).loss.item()
    held = replace(module.compare.mean_reward)
    assert held.value != 0
    for _ in range(2):
        module.eval()(**collate(samples_of(stage.config, processor, range(4, 8))))
    assert module.compare.mean_reward == held
    assert module.train()(**batch).loss.item() == pytest.approx(first, abs=1e-6)


def test_kto_pairs_each_prompt_with_the_next_answer(base):
    stage, module, processor, collate = built(base, "kto")
    samples = samples_of(stage.config, processor, range(3))
    batch = collate(samples)
    rows = answer_rows(batch)
    assert len(rows) == len(batch["token_labels"]) == 6
    for row, (sample, other) in enumerate(zip(samples, [*samples[1:], samples[0]], strict=True)):
        ids = rows[3 + row]
        count = sample.num_prompt_tokens
        assert ids[:count] == sample.input_ids[:count].tolist()
        assert ids[count:] == other.input_ids[other.num_prompt_tokens :].tolist()
        learned = batch["token_labels"][3 + row] != NO_LABEL
        assert learned.sum() == len(other.input_ids) - other.num_prompt_tokens
    alone = module.train()(**collate(samples[:1]))
    assert torch.isfinite(alone.loss)
    assert module.numbers["kl"].item() == 0


def test_kto_needs_other_samples_in_its_batches(base):
    config = language_config(base, "kto", per_device_train_batch_size=1)
    with pytest.raises(ConfigError, match="per_device_train_batch_size = 1: stage kto"):
        stage_of(config).check_settings()
