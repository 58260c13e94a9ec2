"""Copies, near-copies and passages that stand in several documents."""
