import pytest
import torch

from ivcp.models.load import load_base_model
from ivcp.models.path import check_model_path
from ivcp.models.processor import Processor
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier, initial_row
from tests.samples import batch_of
from tests.unit.conftest import LABELS


@pytest.fixture
def processor(base_model_dir, make_config):
    return Processor.from_pretrained(base_model_dir, video=make_config().video, special_tokens=("<ACTION>",))


@pytest.fixture
def classifier(base_model_dir, make_config, processor):
    torch.manual_seed(0)
    model = load_base_model(base_model_dir, settings=make_config().model)
    shape = DecoderShape(decoder_type="linear", hidden_size=model.config.get_text_config().hidden_size, num_classes=3)
    decoder = ActionDecoder(shape)
    return ActionClassifier(model, decoder, labels=LABELS, action_token_id=processor.token_id("<ACTION>")).eval()


def logits_of(classifier, batch):
    with torch.no_grad():
        return classifier(**{name: value for name, value in batch.items() if name != "labels"}).logits


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
def test_nothing_behind_the_action_token_changes_the_logits(classifier, processor, prepared_clips):
    batch = batch_of(processor, prepared_clips[:4])
    behind = torch.randint(0, 200, (4, 7))
    longer = dict(batch)
    longer["input_ids"] = torch.cat([batch["input_ids"], behind], dim=1)
    for name in ("attention_mask", "mm_token_type_ids"):
        fill = torch.ones_like(behind) if name == "attention_mask" else torch.zeros_like(behind)
        longer[name] = torch.cat([batch[name], fill], dim=1)

    torch.testing.assert_close(logits_of(classifier, batch), logits_of(classifier, longer), atol=1e-6, rtol=0)


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
def test_padding_and_company_in_a_batch_change_no_logit(classifier, processor, prepared_clips):
    together = logits_of(classifier, batch_of(processor, prepared_clips[:4]))
    alone = torch.cat([logits_of(classifier, batch_of(processor, [clip])) for clip in prepared_clips[:4]])

    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
def test_state_is_the_last_hidden_state_of_the_full_model(classifier, processor, prepared_clips):
    batch = batch_of(processor, prepared_clips[:2])
    vision = {name: value for name, value in batch.items() if name not in ("labels", "input_ids", "attention_mask")}
    with torch.no_grad():
        states = classifier.action_states(batch["input_ids"], batch["attention_mask"], **vision)
        full = classifier.backbone(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True, **vision
        ).hidden_states[-1]

    positions = batch["attention_mask"].sum(dim=1) - 1
    assert torch.equal(batch["input_ids"][torch.arange(2), positions], torch.full((2,), processor.token_id("<ACTION>")))
    torch.testing.assert_close(states, full[torch.arange(2), positions], atol=1e-5, rtol=0)


def test_the_row_reaches_the_logits_and_gets_a_gradient(classifier, processor, prepared_clips):
    batch = batch_of(processor, prepared_clips[:2])
    before = logits_of(classifier, batch)
    classifier(**batch).loss.backward()

    assert classifier.action_token_row.grad.norm() > 0
    with torch.no_grad():
        classifier.action_token_row.add_(1.0)
    assert (logits_of(classifier, batch) - before).abs().max() > 1e-3


def test_the_frames_matter(classifier, processor, prepared_clips):
    logits = logits_of(classifier, batch_of(processor, prepared_clips[:3]))

    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_a_token_behind_the_end_of_the_embedding_works_the_same(classifier, processor, prepared_clips):
    batch = batch_of(processor, prepared_clips[:2])
    expected = logits_of(classifier, batch)
    embedding = classifier.backbone.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(embedding.weight[: processor.token_id("<ACTION>")].clone())
    embedding.num_embeddings = processor.token_id("<ACTION>")

    torch.testing.assert_close(logits_of(classifier, batch), expected, atol=0, rtol=0)


def test_a_new_row_starts_at_the_mean_and_a_known_one_where_it_is():
    embedding = torch.arange(12.0).reshape(4, 3)

    assert torch.equal(initial_row(embedding, None), embedding.mean(dim=0))
    assert torch.equal(initial_row(embedding, 2), embedding[2])


def test_a_missing_base_model_is_named(tmp_path, make_config):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_base_model(tmp_path / "nowhere", settings=make_config().model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no config.json: expected a model directory"):
        load_base_model(tmp_path / "empty", settings=make_config().model)
    check_model_path("Qwen/Qwen3-VL-4B-Instruct")
