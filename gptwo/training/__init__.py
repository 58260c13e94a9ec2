"""Token shards in, checkpoints out: GPT-2's pre-training (paper section 2.3).

In: a `tokens/` folder, its tokenizer, a model shape. Out: `checkpoints/step-*/`, each an HF GPT-2
folder that training can also go on from, `metrics.jsonl` and `timings.jsonl`.
"""
