"""Documents -> ids -> memory-mapped files: byte-level BPE (paper section 2.2).

`bpe.py` is the readable reference, `fast.py` a library that must agree with it, `learn.py` makes a
vocabulary from a corpus, `pack.py` writes token shards and `shards.py` reads them.
"""
