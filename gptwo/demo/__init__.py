"""The embedded default: a synthetic web of real prose, served on loopback, with a known truth.

The pipeline sees its link table and its pages; only the report sees the truth.
"""
