"""The main text of a page: two extractors, what both agree on, and what a page may cost."""
