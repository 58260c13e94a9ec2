"""Summaries as texts show them: which headline stands over this story (paper section 3.6)."""

from gptwo.zeroshot.demonstrations import headlines
from gptwo.zeroshot.probes import probe

TASK = probe(
    headlines,
    asked="a document with a title, or a first line like one, over at least 100 words: the first "
    "1,500 characters of the text, newline, 'TL;DR:', and the headline, which is asked for",
    lost="end",
)
