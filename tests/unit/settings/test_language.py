import pytest

from ivcp.settings import ConfigError, config_from_settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dpo_label_smoothing": 0.1, "pref_loss": "hinge"}, "choose pref_loss: sigmoid"),
        ({"simpo_gamma": 0.7}, "no meaning for pref_loss: sigmoid; remove it or choose pref_loss: simpo"),
        ({"pref_bco_weight": 0.1, "pref_loss": "orpo"}, "pref_bco_weight = 0.1 has no meaning for pref_loss: orpo"),
        ({"ref_model": "m", "pref_loss": "simpo"}, "choose pref_loss: sigmoid or hinge or ipo or kto_pair"),
        ({"pref_ftx": 0.1, "pref_loss": "orpo"}, "pref_ftx = 0.1 has no meaning for pref_loss: orpo"),
        ({"ref_model_adapters": "a"}, "give ref_model the directory of the adapter itself"),
        ({"use_dft_loss": True}, "sft minimises the cross-entropy"),
    ],
)
def test_settings_that_a_loss_does_not_read_are_refused(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        config_from_settings({"stage": "dpo", "model_name_or_path": "m", **settings})


def test_those_that_it_reads_are_taken():
    config = config_from_settings({"stage": "dpo", "pref_loss": "simpo", "simpo_gamma": 0.7, "pref_ftx": 0.1})
    assert config.language.simpo_gamma == 0.7


def test_questions_and_the_last_answer_alone_are_not_both_learned():
    with pytest.raises(ConfigError, match="train_on_prompt and mask_history exclude each other"):
        config_from_settings({"stage": "sft", "train_on_prompt": True, "mask_history": True})
