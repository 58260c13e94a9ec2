"""extract: the main text of each page.

Paragraphs are separated by an empty line, as in the texts GPT-2 was trained on; the lines of a list
or of a table stay together.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import trafilatura

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.limits import TimeUp, bounded
from gptwo.corpus.shards import Draft, clean, document_id, stages_file
from gptwo.pool import Task


def extract_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The stage by itself: a shard in, a shard out."""
    stages_file(replace(task, input=(task.input, [("extract", extract)])), config, at)


def extract(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """HTML in, main text out; what came in as text passes through."""
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it warns about every odd page
    for number, draft in enumerate(drafts):
        at(number)
        if draft.payload is None:
            continue
        page, draft.payload = draft.payload, None
        try:
            with bounded(config.document_seconds, config.document_memory_mb):
                draft.text = extract_text(decode(page, draft.charset))
        except TimeUp:
            draft.drop("too-slow", f"more than {config.document_seconds:g} s")
        except MemoryError:
            draft.drop("too-much-memory", f"more than {config.document_memory_mb} MB")
        except Exception as error:  # whatever a page provokes in a parser costs that page alone
            draft.drop("not-parsed", f"{type(error).__name__}: {error}"[:200])
        if draft.text:
            draft.id = document_id(draft.text)
        elif not draft.reason:
            draft.drop("no-main-text")


def extract_text(html: str) -> str:
    """The main text of a page, "" when there is none.

    On the article-extraction benchmark this mode has the best F1 of what is freely available; the
    measurement is a test.
    """
    text = trafilatura.extract(html, fast=True, include_comments=False)
    return clean(separate_paragraphs(text or ""))


def separate_paragraphs(text: str) -> str:
    """Lines -> blocks with an empty line between them; the items of a list stay together."""
    lines = [line.rstrip() for line in text.split("\n")]
    out: list[str] = []
    for line in lines:
        if not line:
            continue
        if out:
            same = _kind(line) and _kind(line) == _kind(out[-1])
            out.append("\n" if same else "\n\n")
        out.append(line)
    return "".join(out)


def _kind(line: str) -> str:
    return line[:1] if line.startswith(("- ", "|")) else ""
