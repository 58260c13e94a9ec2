"""Settings are named, typed and checked before work starts."""

from dataclasses import dataclass

import pytest

from gptwo.config import from_dict, to_dict, with_settings
from gptwo.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Training:
    lr: float = 1e-3
    steps: int = 3
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError("lr must be positive")


@dataclass(frozen=True, kw_only=True)
class Whole:
    training: Training = Training()
    name: str = "x"
    optional: Training | None = None


def test_settings_reach_nested_fields() -> None:
    changed = with_settings(Whole(), ["training.lr=3e-4", "name=run-7", 'training.stop=["a"]'])
    assert changed == Whole(training=Training(lr=3e-4, stop=("a",)), name="run-7")
    assert Whole().training.lr == 1e-3
    assert from_dict(Whole, to_dict(changed)) == changed


@pytest.mark.parametrize(
    ("setting", "message", "remedy"),
    [
        ("training.lrr=1", "unknown setting 'training.lrr'", "'training.lr'"),
        ("lr=2", "unknown setting 'lr'", "'training.lr'"),
        ("trainign.steps=2", "unknown setting", "'training.steps'"),
        ("training=3", "is a group", "training.lr=..."),
        ("training.lr=-1", "lr must be positive", "--dry-run"),
        ("training.steps=abc", "training.steps: Input should be a valid integer", "--dry-run"),
        ("name", "has no value", "name=value"),
        ("training.lr.x=2", "'lr' has no parts", "settings are"),
        ("optional.lr=2", "'optional' has no parts", "settings are"),
    ],
)
def test_a_wrong_setting_is_an_error_with_the_nearest_name(
    setting: str, message: str, remedy: str
) -> None:
    with pytest.raises(UsageError) as caught:
        with_settings(Whole(), [setting])
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_saved_setting_of_another_version_is_named() -> None:
    with pytest.raises(UsageError, match=r"training\.dropped"):
        from_dict(Whole, {"training": {"dropped": 1}})
