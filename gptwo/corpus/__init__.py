"""Pages and texts -> clean, de-duplicated, split documents (paper section 2.1).

In: WARC and ARC files, a crawl's folder, HTML, JSON lines, Parquet, plain text. Out: Parquet in
`train/`, `valid/`, `test/`, and `dropped/` with the stage, the reason and a detail for every
document that was set aside. All work is files to files, by processes here or on a cluster: read ->
extraction -> cleaning -> duplicates -> overlap -> split; `build.py` is the order.
"""
