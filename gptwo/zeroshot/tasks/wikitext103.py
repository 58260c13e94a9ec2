"""WikiText-103, test: the text of WikiText-2's raw test under another name (paper table 3).

The two sets differ in their vocabularies and so in which words are <unk>; raw, they are one file.
The paper's 37.50 for the smallest model is what was reported for the text as it is in windows of
1,024 with stride 32, so its column is best compared with the raw perplexity here.
"""

from gptwo.zeroshot.tasks import wikitext2

TASK = wikitext2.TASK
