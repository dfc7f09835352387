import importlib.util
import logging

import pytest
import torch
from torch._dynamo.utils import counters

from ivcp.models.acceleration import LoraUp, compile_layers
from ivcp.models.backbone import language_model_of
from ivcp.models.load import AttentionError, check_attention, load_base_model
from ivcp.settings import ConfigError, ModelConfig
from ivcp.training.result import run_trainer

# torch 2.13 defines a module with it as soon as anything is compiled.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    # Where warnings are errors, the compiler stops at its own look at a gradient.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def test_compiled_layers_give_the_same_states_and_gradients(base_model_dir, make_config):
    """With the backend that runs the captured graphs as they are: C++ code takes half a minute to build."""
    ids = torch.arange(5, 45).reshape(2, 20)

    def run(*, compiled):
        torch._dynamo.reset()
        counters.clear()
        model = load_base_model(base_model_dir, settings=make_config().model)
        names = list(model.state_dict())
        if compiled:
            compile_layers(model, backend="eager")
        states = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
        states.square().mean().backward()
        assert list(model.state_dict()) == names
        layer = model.get_decoder().layers[0]
        return states.detach(), layer.self_attn.q_proj.weight.grad, counters["stats"]["unique_graphs"]

    states, gradient, num_graphs = run(compiled=False)
    compiled_states, compiled_gradient, num_compiled_graphs = run(compiled=True)
    torch.testing.assert_close(compiled_states, states, atol=1e-6, rtol=0)
    torch.testing.assert_close(compiled_gradient, gradient, atol=1e-6, rtol=0)
    assert (num_graphs, num_compiled_graphs) == (0, 1)  # the layers share one


def test_compiling_clips_of_several_lengths_warns(train_on_shards, mixed_index, caplog):
    train_on_shards(torch_compile=True)
    assert "torch_compile" not in caplog.text

    trainer = train_on_shards(torch_compile=True, index=mixed_index)
    assert "it is worth it where all clips have one length" in caplog.text
    assert all(
        layer._compiled_call_impl is not None
        for layer in language_model_of(trainer.model.backbone).get_decoder().layers
    )


def losses_of(trainer):
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_compiled_training_computes_activations_again_and_gives_the_same_losses(train_on_shards, tmp_path):
    """With the compiler itself: what it computes again in the backward pass is its own decision."""
    torch._dynamo.reset()
    settings = {"disable_gradient_checkpointing": False, "max_steps": 3, "logging_steps": 1, "eval_strategy": "no"}
    expected = losses_of(train_on_shards(output_dir=tmp_path / "as it is", **settings))
    counters.clear()
    trainer = train_on_shards(output_dir=tmp_path / "compiled", torch_compile=True, **settings)
    losses = losses_of(trainer)

    assert trainer.args.activation_checkpointing
    assert len(losses) == 3
    assert losses == pytest.approx(expected, abs=1e-4)
    assert counters["inductor"]["fxgraph_cache_hit"] + counters["inductor"]["fxgraph_cache_miss"] > 0


def test_torch_compile_without_a_compiler_is_refused(train_on_shards, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"torch_compile needs a C(\+\+)? compiler .* there is no no-such-compiler"):
        train_on_shards(torch_compile=True)


@pytest.mark.parametrize("rank", [1, 8])
def test_loras_second_matrix_multiplies_as_a_linear_layer_does(rank):
    torch.manual_seed(0)
    layer = torch.nn.Linear(rank, 24, bias=False)
    states = torch.randn(2, 5, rank, requires_grad=True)
    weights = torch.randn(2, 5, 24)

    def run():
        output = layer(states)
        return output, *torch.autograd.grad((output * weights).sum(), (states, layer.weight))

    expected = run()
    layer.__class__ = LoraUp
    torch.testing.assert_close(run(), expected, atol=1e-6, rtol=0)


def test_trained_adapters_have_the_faster_second_matrix(train_on_shards):
    names = [name for name, module in train_on_shards().model.named_modules() if isinstance(module, LoraUp)]
    assert names
    assert all("lora_B" in name for name in names)


def test_liger_without_its_package_is_refused(train_on_shards):
    if importlib.util.find_spec("liger_kernel"):
        pytest.skip("liger-kernel is installed")
    with pytest.raises(ConfigError, match="enable_liger_kernel needs the package liger-kernel: pip install"):
        train_on_shards(enable_liger_kernel=True)


def test_flash_attention_without_its_package_is_refused(train_on_shards):
    if importlib.util.find_spec("flash_attn"):
        pytest.skip("flash-attn is installed")
    with pytest.raises(ConfigError, match="flash_attn = fa2 needs the package flash-attn"):
        train_on_shards(flash_attn="fa2")
    with pytest.raises(AttentionError, match="flash_attn = fa2 needs the package flash-attn"):
        check_attention(ModelConfig(flash_attn="fa2"))


@pytest.mark.parametrize(
    ("settings", "checkpoints"),
    [
        ({}, True),
        ({"disable_gradient_checkpointing": True}, False),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 0}, True),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 0, "action_token_lr_scale": 0}, False),
    ],
)
def test_activations_are_computed_again_only_where_gradients_pass(train_on_shards, settings, checkpoints):
    trainer = train_on_shards(**{"disable_gradient_checkpointing": False, "max_steps": 1} | settings)

    assert bool(trainer.args.activation_checkpointing) is checkpoints
    run_trainer(trainer)


def test_a_row_that_does_not_learn_leaves_the_backbone_without_gradients(train_on_shards, caplog):
    caplog.set_level(logging.INFO)
    trainer = train_on_shards(finetuning_type="freeze", freeze_trainable_layers=0, action_token_lr_scale=0)
    before = trainer.model.action_token_row.detach().clone()
    run_trainer(trainer)

    assert torch.equal(trainer.model.action_token_row, before)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    batch.pop("labels")
    assert not trainer.model.action_states(**batch).requires_grad
