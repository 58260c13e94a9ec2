"""extract: the main text of each page, within limits of time and memory.

Paragraphs are separated by an empty line, as in the texts GPT-2 was trained on; the lines of a list
or of a table stay together.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from unicodedata import normalize

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.both import extract_both
from gptwo.corpus.extraction.bulk import extract_bulk
from gptwo.corpus.extraction.limits import TimeUp, limits
from gptwo.corpus.extraction.quality import extract_quality
from gptwo.corpus.shards import Draft, clean, document_id, stages_file
from gptwo.pool import Task

START = 4096  # characters, within which a page begins
_HTML = re.compile(r"<(?:html|head|body)[\s>]", re.IGNORECASE)

EXTRACTORS: dict[str, Callable[[str], str]] = {
    "quality": extract_quality,
    "bulk": extract_bulk,
    "both": extract_both,
}


def extract_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The stage by itself: a shard in, a shard out."""
    stages_file(replace(task, input=(task.input, [("extract", extract)])), config, at)


def extract(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """HTML in, main text out; what came in as text passes through."""
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it warns about every odd page
    with limits(config.document_seconds, config.document_memory_mb) as bounded:
        for number, draft in enumerate(drafts):
            at(number)
            if draft.payload is None:
                continue
            page, draft.payload = draft.payload, None
            try:
                with bounded():
                    draft.text = extract_text(decode(page, draft.charset), config.extractor)
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


def extract_text(html: str, extractor: str = "quality") -> str:
    """The main text of a page by one of EXTRACTORS, "" when there is none, or no page.

    Letters that can be written in two ways are in one (NFC), as in nearly all pages: in the others
    copies would not be found.
    """
    start = html[:START]
    if not start.lstrip("\ufeff\0 \t\r\n").startswith("<") and not _HTML.search(start):
        return ""  # JSON, plain text
    return clean(normalize("NFC", EXTRACTORS[extractor](html)))
