"""In: a run folder. Out: `report.html`, one page that tells the run from its links to its text.

It shows the paper's Figures 1 and 4 for this run: score against size, and perplexity on the text a
model was trained on beside text it has not seen.
"""
