"""Training settings are checked when they are read."""

from __future__ import annotations

import pytest

from splicestore.errors import ConfigError
from splicestore.train.settings import TrainSettings, learning_rate, parse_train_settings


def test_a_yaml_document_is_read():
    settings = parse_train_settings(
        "steps: 100\nmodel:\n  options: {channels: 8}\ncondition_weights: {brain: 2}\n", "run.yaml"
    )
    assert settings.steps == 100
    assert settings.model.options == {"channels": 8}
    assert settings.weights_of(["liver", "brain"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 10\nlearning_rte: 1", "learning_rte: Extra inputs"),
        ("", "give `steps` or `epochs`"),
        ("steps: 10\nepochs: 1", "give `steps` or `epochs`"),
        ("steps: 0", "steps: .*greater than or equal to 1"),
        ("steps: 1\nclass_weights: [1, 0, 1]", "class_weights: .*above 0"),
        ("steps: 1\ncondition_weights: {brain: -1}", "condition_weights: .*0 or more"),
        ("steps: 1\nname: a/b", "not a name"),
        ("steps: 1\ngeneless_fraction: 1.5", "geneless_fraction"),
        ("steps: [1", "not valid YAML"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(text, message):
    with pytest.raises(ConfigError, match=rf"(?s)run.yaml: .*{message}"):
        parse_train_settings(text, "run.yaml")


def test_conditions_that_all_weigh_nothing_are_refused():
    with pytest.raises(ConfigError, match="all 0"):
        TrainSettings(steps=1, condition_weights={"brain": 0}).weights_of(["brain"])
    assert TrainSettings(steps=1, condition_weights={"brain": 0}, usage_weight=0).weights_of(["brain"]) == [0.0]


@pytest.mark.parametrize(("warmup", "n_steps"), [(0, 1), (0, 50), (10, 50), (100, 50)])
def test_learning_rate_rises_then_falls_and_never_vanishes(warmup, n_steps):
    settings = TrainSettings(steps=n_steps, warmup_steps=warmup, learning_rate=0.5)
    rates = [learning_rate(step, settings, n_steps) for step in range(n_steps)]
    assert min(rates) > 0
    assert max(rates) <= 0.5
    top = min(warmup, n_steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
