"""Pages and texts -> clean, de-duplicated, split documents (paper section 2.1).

In: WARC and ARC files, a crawl's folder, HTML, JSON lines, Parquet, plain text. Out: Parquet in
`train/`, `valid/`, `test/`, and `dropped/` with the stage, the reason and a detail for every
document that was set aside. The stages are files to files, run on a pool of processes, joined by
DuckDB: read -> extract -> language -> rules -> exact-dedup -> near-dedup -> wikipedia -> split.
"""
