"""One Billion Words, test: perplexity per word of sentences in no order (paper table 3).

The paper explains its poor result there by the shuffling, which leaves no context beyond a
sentence; so each is scored alone. The test file by custom is the first of 50 held-out parts of the
published archive, http://www.statmt.org/lm-benchmark/ (Chelba et al. 2013). The archive is read as
it is: the part alone has no published hash.
"""

from gptwo.zeroshot.detokenize import NEWS
from gptwo.zeroshot.running_text import running_text
from gptwo.zeroshot.sources import DataFile

NAME = "1-billion-word-language-modeling-benchmark-r13output"
FILE = DataFile(
    path=f"eval/1bw/{NAME}.tar.gz",
    size=1_792_209_805,
    sha256="01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e",
    member=f"{NAME}/heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",
)
TASK = running_text(
    FILE,
    NEWS,
    "removes spaces before punctuation, contractions and percent signs, inside brackets and "
    "quotes, after currency signs; every edit can be undone",
    shuffled=True,
)
