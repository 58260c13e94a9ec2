"""Two extractors together, as the paper did it (section 2.1 names Dragnet and Newspaper).

How it combined them it does not say. Here a line is kept when both found it; where they hardly
agree on anything, one of them missed the article, and the longer text is taken.
"""

import re
from unicodedata import normalize

from gptwo.corpus.extraction.bulk import extract_bulk
from gptwo.corpus.extraction.quality import extract_once

AGREED = 1 / 3  # of the longer text: with less in common the two did not find the same thing

_WORD = re.compile(r"\w+")


def extract_both(html: str) -> str:
    """The main text of a page, "" when there is none."""
    return agreement(extract_bulk(html), extract_once(html))


def agreement(first: str, second: str) -> str:
    """The lines of the first text whose words stand in the second as well."""
    words = _words(second)
    blocks = [
        [line for line in block.split("\n") if _words(line) in words]
        for block in first.split("\n\n")
    ]
    common = "\n\n".join("\n".join(lines) for lines in blocks if lines)
    longer = max(first, second, key=len)
    return common if len(common) >= AGREED * len(longer) else longer


def _words(text: str) -> str:
    """Words with single spaces around; one space where there is none, which is in any text."""
    return " ".join(["", *_WORD.findall(normalize("NFC", text)), ""])
