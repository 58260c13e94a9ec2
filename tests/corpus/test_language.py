"""language: what is kept, and that the model is the local one."""

from pathlib import Path

import pytest

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.language import SLICE_CHARACTERS, language_file, sample
from gptwo.corpus.shards import Draft, read_shard, write_shard
from gptwo.pool import Task

TEXTS = {
    "en": "The committee met on Tuesday to discuss the budget for the coming year.",
    "de": "Der Ausschuss traf sich am Dienstag, um über den Haushalt zu beraten.",
    "fr": "Le comité s'est réuni mardi pour discuter du budget de l'année prochaine.",
}


def detect(tmp_path: Path, texts: list[str], config: CorpusConfig) -> list[Draft]:
    write_shard(tmp_path / "in.parquet", [Draft(text=text) for text in texts])
    task = Task(input=tmp_path / "in.parquet", output=tmp_path / "out.parquet")
    language_file(task, config, lambda position: None)
    return read_shard(tmp_path / "out.parquet", kept=False)


def test_english_is_kept_and_nothing_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr("socket.socket.connect", refuse)
    drafts = detect(tmp_path, [*TEXTS.values(), "User-agent: *\nDisallow: /"], CorpusConfig())
    assert [draft.lang for draft in drafts[:3]] == list(TEXTS)
    assert [draft.reason for draft in drafts[:3]] == ["", "other-language", "other-language"]
    assert drafts[1].detail.startswith("de 0.9") or drafts[1].detail == "de 1.00"
    assert drafts[3].reason == "uncertain-language"


def test_settings(tmp_path: Path) -> None:
    texts = list(TEXTS.values())
    kept = detect(tmp_path, texts, CorpusConfig(language="de"))
    assert [draft.reason == "" for draft in kept] == [False, True, False]
    assert not any(draft.reason for draft in detect(tmp_path, texts, CorpusConfig(language="")))
    strict = detect(tmp_path, ["Malformed request"], CorpusConfig(language_threshold=1.0))
    assert strict[0].reason


def test_a_book_is_judged_by_three_slices() -> None:
    text = "a" * 50_000 + "b" * 50_000 + "c" * 50_000
    assert len(sample(text)) == 3 * SLICE_CHARACTERS + 2 and {"a", "b", "c"} < set(sample(text))
    assert sample("short") == "short"
