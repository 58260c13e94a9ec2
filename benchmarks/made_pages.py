"""Pages, texts and tables of keys that benchmarks/corpus.py generates."""

import gzip
import html
import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from dedup import CHANGES, passages  # the benchmark beside this one

from gptwo.corpus.duplicates.minhash import BANDS
from gptwo.corpus.shards import SHARD_DOCUMENTS, write_table

FILES = 8  # that the pages come in
COPIES = 0.3  # of the pages
NAV = ("Home", "World", "Business", "Science", "Sport", "Opinion", "Archive", "About us")


def make_texts(data: Path, count: int, seed: int = 1) -> list[str]:
    """`count` texts, some of them changed copies of others, well mixed."""
    chance = random.Random(seed)
    copies = int(count * COPIES)
    whole = list(islice(passages(data, chance), count - copies))
    ways = list(CHANGES.values())
    made = [
        chance.choice(ways)(whole[int(len(whole) * chance.random() ** 2)], chance, whole)
        for _ in range(copies)
    ]
    texts = whole + made
    chance.shuffle(texts)
    return texts


def page_of(text: str, number: int, chance: random.Random) -> str:
    """A text as a small site would show it: about 5 kB of furniture around it."""
    title = html.escape(text[:60].replace("\n", " "))
    body = "\n".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n") if part.strip())
    links = "".join(f'<li><a href="/{name.lower()}/">{name}</a></li>' for name in NAV)
    related = "".join(
        f'<li class="teaser"><a href="/story/{chance.randrange(10**6)}?from=related">'
        f"<img src='/thumb/{chance.randrange(10**6)}.jpg' width='80' height='60' alt=''>"
        f"Story number {chance.randrange(10**6)}</a><span class='time'>2 h ago</span></li>"
        for _ in range(10)
    )
    style = "".join(
        f".c{n}{{margin:{n}px 0;padding:{n % 7}px;color:#{n * 4099 % 4096:03x}}}" for n in range(24)
    )
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{style}</style><script>var page={{id:{number},ads:['top','side']}};"
        f"function track(e){{navigator.sendBeacon('/t',JSON.stringify(e));}}</script></head>\n"
        f"<body><header><a href='/' class='logo'>Site {number % 500}</a><nav><ul>{links}</ul>"
        f"</nav></header>\n<main><article><h1>{title}</h1><div class='byline'>By A. Writer"
        f"</div>\n{body}\n</article></main>\n<aside class='sidebar'><h3>Related stories</h3><ul>"
        f"{related}</ul></aside>\n<div class='newsletter'><form action='/subscribe'>"
        f"<label>Get our newsletter</label><input type='email' name='mail'>"
        f"<button>Sign up</button></form></div>\n<footer>"
        f"<ul>{links}</ul><p>Copyright 2017. All rights reserved. Terms of use, privacy policy.</p>"
        f"</footer></body></html>"
    )


def write_pages(texts: list[str], folder: Path) -> int:
    """The pages as WARC files, a gzip member a record; returns the bytes of HTML."""
    folder.mkdir(parents=True)
    chance, total = random.Random(2), 0
    each = -(-len(texts) // FILES)
    for number in range(FILES):
        with (folder / f"pages-{number:05}.warc.gz").open("wb") as out:
            for place in range(number * each, min((number + 1) * each, len(texts))):
                page = page_of(texts[place], place, chance).encode()
                total += len(page)
                url = f"http://site{place % 500}.example/story/{place}"
                out.write(gzip.compress(warc_record(url, page), 1, mtime=0))
    return total


def warc_record(url: str, page: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-000000000000>\r\n"
        f"WARC-Date: 2017-03-06T04:03:53Z\r\nWARC-Target-URI: {url}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def write_html_lines(texts: list[str], folder: Path) -> None:
    """The same pages as JSON lines."""
    folder.mkdir(parents=True)
    chance, each = random.Random(2), -(-len(texts) // FILES)
    for number in range(FILES):
        with (folder / f"{number:05}.jsonl").open("w") as out:
            for place in range(number * each, min((number + 1) * each, len(texts))):
                page = page_of(texts[place], place, chance)
                out.write(json.dumps({"text": page, "id": f"page-{place}"}) + "\n")


def write_lines(count: int, folder: Path) -> None:
    """Made-up short texts as JSON lines in files of 100,000, three in ten a copy and a word."""
    folder.mkdir(parents=True)
    chance = random.Random(3)
    recent = [""] * 7
    words = ["the", "of", "and", "to", "that", *(f"w{n}ord" for n in range(5_000))]
    for start in range(0, count, 100_000):
        with (folder / f"{start // 100_000:05}.jsonl").open("w") as out:
            for number in range(start, min(start + 100_000, count)):
                if number % 10 >= 7:  # a copy of one of the seven before it
                    text = f"{recent[number % 7]} {number}"
                else:
                    picked = [words[int(5_000 * chance.random() ** 3)] for _ in range(150)]
                    text = recent[number % 10] = " ".join(picked)
                url = f"http://s{number % 997}.example/{number}"
                out.write(json.dumps({"text": text, "url": url}) + "\n")


def write_keys(folder: Path, documents: int) -> None:
    """Tables of keys as shards of 1,024 documents have them; a fifth share words, a fifth bands."""
    chance = np.random.default_rng(4)
    for start in range(0, documents, SHARD_DOCUMENTS):
        rows = np.arange(start, min(start + SHARD_DOCUMENTS, documents))
        keys = chance.integers(1 << 63, size=(2 + BANDS, len(rows)), dtype=np.uint64)
        copies, near_ones = rows % 10 >= 8, rows % 10 < 2
        keys[:, copies] = (rows[copies] // 20).astype(np.uint64) * 7919 + np.arange(16)[:, None]
        group = (rows[near_ones] // 30).astype(np.uint64)
        keys[2:, near_ones] = group * 104_729 + np.arange(BANDS, dtype=np.uint64)[:, None]
        hexes = [f"{row * 0x9E3779B97F4A7C15 % (1 << 128):032x}" for row in rows.tolist()]
        urls = [f"http://site{row % 997}.example/story/{row}" for row in rows.tolist()]
        columns = {
            "row": rows,
            "id": hexes,
            "url": urls,
            "source": ["pages-00000.warc.gz"] * len(rows),
            "score": pa.array(rows % 50, pa.int32()),
            "length": 500 + rows % 4_000,
            "key": keys[0],
            "key2": keys[1],
            **{f"band{n}": keys[2 + n] for n in range(BANDS)},
        }
        write_table(folder / f"{start // SHARD_DOCUMENTS:05}.parquet", pa.table(columns))
