"""A context and its continuation as tokens, cut where lm-evaluation-harness cuts.

Spaces at the end of the context belong to the continuation, and the border lies where the context
alone ends: tokens that would span it are cut by position, not by text.
"""

from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot.score import Request


def pair(tokenizer: Tokenizer, context: str, continuation: str) -> Request:
    """The request for `continuation` after `context`; an empty context is <|endoftext|>."""
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if not kept:
        return Request(context=[tokenizer.eot], continuation=tokenizer.encode(continuation))
    whole, head = tokenizer.encode(kept + continuation), tokenizer.encode(kept)
    return Request(context=whole[: len(head)], continuation=whole[len(head) :])
