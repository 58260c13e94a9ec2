"""WMT14 French to English, newstest2014: 3,003 sentences (paper section 3.7)."""

from gptwo.zeroshot.translation import ENGLISH, FRENCH, translation

TASK = translation(FRENCH, ENGLISH, into_english=True)
