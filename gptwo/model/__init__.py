"""ids -> logits: the architecture of the paper (section 2.3), weights in and out.

`gpt2.py` is the model, `gpt1.py` its ancestor, `sizes.py` the shapes, `loss.py` the training loss,
`weights.py` the files.
"""
