"""WikiText-2, test: perplexity per word of 4,358 lines of Wikipedia (paper table 3)."""

from gptwo.zeroshot.detokenize import WIKITEXT
from gptwo.zeroshot.running_text import running_text
from gptwo.zeroshot.sources import DataFile

FILE = DataFile(
    path="eval/wikitext2/wiki.test.raw",
    size=1_290_590,
    sha256="173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
)
TASK = running_text(
    FILE,
    WIKITEXT,
    "joins @-@ @,@ @.@, headings, contractions, brackets, quotes, currency and degree signs, "
    "ranges; removes spaces before punctuation and at line ends; every edit can be undone",
)
