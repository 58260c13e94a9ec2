"""A small model that has learned nothing but predicts with conviction, and a tokenizer."""

import pytest
from small_text_model import Subject, subject


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """The models here are small."""


@pytest.fixture
def small() -> Subject:
    return subject()
