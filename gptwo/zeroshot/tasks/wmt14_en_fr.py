"""WMT14 English to French, newstest2014: 3,003 sentences (paper section 3.7)."""

from gptwo.zeroshot.translation import ENGLISH, FRENCH, translation

TASK = translation(ENGLISH, FRENCH, into_english=False)
