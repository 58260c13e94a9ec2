"""In: a model and its tokenizer, evaluation sets or a corpus. Out: scores/TASK.json with intervals,
baselines and protocol, and a log of every sample. Zero-shot evaluation, paper section 3.
"""
