"""In: a GPT-2 in any of the formats its tools write. Out: the same model in any of them.

Every reader makes `Weights` of what it finds, every writer starts from one; `convert` joins them.
"""
