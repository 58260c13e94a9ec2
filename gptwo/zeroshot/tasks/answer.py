"""Answers as texts show them: a question and what is replied (paper section 3.8)."""

from gptwo.zeroshot.demonstrations import replies
from gptwo.zeroshot.probes import probe

TASK = probe(
    replies,
    asked="a question in quotes that ends its paragraph and the quoted reply that begins the next, "
    "or lines marked Q and A; the reply, of 12 to 160 characters, is asked for",
    lost="start",
)
