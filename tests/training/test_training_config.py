import pytest

from gptwo.training.config import TrainingConfig, paper


@pytest.mark.parametrize(
    "field, value",
    [
        ("steps", 0),
        ("batch_tokens", 0),
        ("micro_batch", 0),
        ("keep_checkpoints", 0),
        ("warmup_steps", -1),
        ("validation_interval", -1),
        ("checkpoint_interval", -1),
        ("optimizer", "sgd"),
        ("schedule", "step"),
        ("decay_ratio", 0.0),
        ("decay_ratio", 1.1),
        ("muon_lr", 0.0),
        ("muon_lr", float("nan")),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("clip", -1.0),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("lr_final_ratio", 1.1),
        ("weight_decay", -0.1),
        ("validation_tokens", 0),
        ("seed", -1),
    ],
)
def test_out_of_range_settings_are_named(field: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=field):
        TrainingConfig(**{field: value})  # type: ignore[arg-type]


def test_the_papers_recipe_is_adamw_along_a_cosine() -> None:
    config = paper(TrainingConfig(steps=7, seed=3), lr=6e-4)
    kept = (config.steps, config.seed, config.batch_tokens)
    assert kept == (7, 3, TrainingConfig().batch_tokens)
    assert (config.optimizer, config.schedule, config.lr) == ("adamw", "cosine", 6e-4)
    assert (config.beta1, config.beta2, config.weight_decay, config.clip) == (0.9, 0.95, 0.1, 1.0)
    assert config.lr_final_ratio == 0.1
