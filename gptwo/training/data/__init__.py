"""Which tokens a step reads: a pure function of (seed, step)."""
