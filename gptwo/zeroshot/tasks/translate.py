"""Translation as texts show it: a foreign word, "which means", and the meaning (paper table 1)."""

from gptwo.zeroshot.demonstrations import translations
from gptwo.zeroshot.probes import probe

TASK = probe(
    translations,
    asked="a term in italics or quotes, 'which means', 'that is', 'meaning' or a bracket, and a "
    "gloss of at most 6 words, which is asked for",
    lost="start",
)
