"""Penn Treebank, test: perplexity per word of 3,761 lines, <unk> and N left in (paper table 3)."""

from gptwo.zeroshot.detokenize import PTB
from gptwo.zeroshot.running_text import running_text
from gptwo.zeroshot.sources import DataFile

FILE = DataFile(
    path="eval/ptb/ptb.test.txt",
    size=449_945,
    sha256="dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
)
TASK = running_text(
    FILE,
    PTB,
    "joins n't, 's and their like, $ and #; turns \\/ into /; removes spaces at line ends; "
    "<unk> and N stay; every edit can be undone",
)
