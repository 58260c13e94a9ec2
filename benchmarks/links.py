"""How many submissions a second `gptwo links` reads, and in how much memory: prints JSON.

usage: python benchmarks/links.py [--submissions 1000000] [--turns 3] [--folder FOLDER]

Two dumps are generated, zstd level 3 with long matches in a 128 MB window:

- `first`: the 55 fields and lengths of the lines of Reddit's first months (about 1.4 kB a line, no
  texts of one's own, 70% with a score of 3 or more);
- `modern`: 106 fields, about 2.7 kB a line (45% texts of one's own, a third of the rest pictures
  and films, 40% with a score of 3 or more).

Each is read in turns, each time in a fresh process and an empty folder,

- by `gptwo links` with default settings: judged, de-duplicated, every dropped link noted, hashes;
- by `peer`, which does what the scripts of the public reproduction do (jcpeterson/openwebtext):
  zstandard's stream as lines of text, json.loads, the same rules in their simplest form, and a
  score for each address in a dict; one address a line out.

Rates are of wall time and of cpu-seconds (user and system, children too), best of the turns. MB are
10^6 bytes of JSON. Then memory at a tenth and at the whole of `modern`, and at a window of 2 GB.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zstandard

from gptwo.progress import Reporter
from gptwo.web.blocklists import BLOCKED, NOT_TEXT
from gptwo.web.config import LinksConfig
from gptwo.web.links import collect_links
from gptwo.world import machine

WINDOW = 27  # bits; --long=31 of Reddit's later dumps is measured for its memory

FLAGS = """
    archived brand_safe can_gild contest_mode hidden hide_score is_crosspostable
    is_reddit_media_domain is_video locked no_follow send_replies spoiler stickied
"""
NOTHINGS = """
    author_flair_background_color author_flair_css_class author_flair_text author_flair_text_color
    distinguished link_flair_css_class link_flair_text media secure_media suggested_sort
    thumbnail_height thumbnail_width
"""
LATER_FLAGS = """
    allow_live_comments author_is_blocked author_patreon_flair author_premium can_mod_post clicked
    is_created_from_ads_ui is_meta is_original_content is_robot_indexable media_only pinned
    quarantine saved visited
"""
LATER_NOTHINGS = """
    approved_at_utc approved_by author_flair_template_id banned_at_utc banned_by category
    content_categories discussion_type likes link_flair_template_id mod_note mod_reason_by
    mod_reason_title mod_reports_by num_reports removal_reason removed_by removed_by_category
    report_reasons top_awarded_type view_count
"""
LATER_LISTS = """
    all_awardings awarders treatment_tags user_reports author_flair_richtext link_flair_richtext
    mod_reports
"""
WORDS = ("the", "of", "and", "in", "that", "how", "why", "your", "first", "people", "world", "from")
SITES = [f"site{n}.example" for n in range(3000)]
PICTURES = ("i.imgur.com", "i.redd.it", "v.redd.it", "www.youtube.com", "gfycat.com", "twitter.com")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder, count = Path(name), asked.submissions
        shapes = {}
        for shape in LINES:
            dump = write_dump(folder / f"{shape}.zst", shape, count, WINDOW)
            shapes[shape] = measure(dump, count, asked.turns, folder)
        memory = measure_memory(count, folder)
    command = " ".join(["python benchmarks/links.py", *sys.argv[1:]])
    found = {"command": command, "machine": machine(), **shapes, "memory": memory}
    print(json.dumps(found, indent=2))


def measure(dump: Path, count: int, turns: int, folder: Path) -> dict[str, Any]:
    """Rates of both ways over one dump."""
    with dump.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        size = sum(len(part) for part in iter(lambda: stream.read(1 << 20), b""))
    best: dict[str, dict[str, float]] = {}
    for turn in range(turns):
        for way in WAYS:
            ran = in_child(way, dump, folder / f"{dump.stem}-{way}-{turn}")
            known = best.setdefault(way, ran)
            best[way] = {key: min(known[key], ran[key]) for key in ran}
    rates = {
        way: {
            "submissions_per_second": round(count / ran["seconds"]),
            "submissions_per_cpu_second": round(count / ran["cpu_seconds"]),
            "mb_per_second": round(size / 1e6 / ran["seconds"]),
            "peak_mb": round(ran["peak_mb"]),
            "kept": ran["kept"],
        }
        for way, ran in best.items()
    }
    keys = ("submissions_per_second", "submissions_per_cpu_second")
    ratios = {key: round(rates["links"][key] / rates["peer"][key], 1) for key in keys}
    return {
        "submissions": count,
        "bytes_a_line": round(size / count),
        "compressed_to": round(dump.stat().st_size / size, 3),
        "turns": turns,
        "rates": rates,
        "ratio_to_peer": ratios,
    }


def measure_memory(count: int, folder: Path) -> list[dict[str, Any]]:
    """The most memory of `gptwo links` over dumps of several lengths and windows."""
    found = []
    for share, window in ((count // 10, 23), (count, 23), (count, WINDOW), (count, 31)):
        dump = write_dump(folder / f"{share}-{window}.zst", "modern", share, window)
        ran = in_child("links", dump, folder / f"memory-{share}-{window}")
        peak = round(ran["peak_mb"])
        found.append({"submissions": share, "window_mb": (1 << window) / 1e6, "peak_mb": peak})
    return found


def write_dump(path: Path, shape: str, count: int, window: int) -> Path:
    """A dump of generated submissions, always the same; many lines use the same addresses."""
    if not path.exists():
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3, window_log=window, enable_ldm=True
        )
        line, chance = LINES[shape], random.Random(1)
        with (
            path.open("wb") as raw,
            zstandard.ZstdCompressor(compression_params=parameters).stream_writer(raw) as packed,
        ):
            for number in range(count):
                packed.write(line(number, chance).encode() + b"\n")
    return path


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words)) + f" {chance.randrange(10**6)}"


def address(number: int, chance: random.Random, pictures: float) -> tuple[str, str]:
    """An address and its host; one in ten was posted before."""
    number = chance.randrange(number + 1) if chance.random() < 0.1 else number
    if chance.random() < pictures:
        host = PICTURES[number % len(PICTURES)]
        return f"https://{host}/{number:x}" + (".jpg" if number % 2 else ""), host
    host = SITES[number * 7919 % len(SITES)]
    query = ("", "", "", f"?id={number}&utm_source=reddit", f"?p={number}&page=2")[number % 5]
    words = "caf%C3%A9" if number % 50 == 0 else "an-article-about-things"
    return f"http://www.{host}/{number % 12 + 1}/{number:x}/{words}/{query}", host


def score(chance: random.Random, good: float) -> int:
    return round(3 / max(chance.random(), 1e-4)) if chance.random() < good else chance.randrange(3)


def dumped(value: dict[str, Any]) -> str:
    """JSON as the dumps write it."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def first_line(number: int, chance: random.Random) -> str:
    """A line of the first months, slashes escaped."""
    url, host = address(number, chance, 0.02)
    title = sentence(chance, chance.randrange(3, 12))
    value = {
        **dict.fromkeys(FLAGS.split(), False),
        **dict.fromkeys(NOTHINGS.split()),
        "author": f"user{chance.randrange(5000)}",
        "author_flair_richtext": [],
        "author_flair_type": "text",
        "created_utc": 1_120_181_161 + number,
        "domain": host,
        "edited": False,
        "gilded": 0,
        "id": f"{number:x}",
        "is_self": False,
        "link_flair_richtext": [],
        "link_flair_type": "text",
        "media_embed": {},
        "num_comments": chance.randrange(9),
        "num_crossposts": 0,
        "over_18": False,
        "parent_whitelist_status": "all_ads",
        "permalink": f"/r/reddit.com/comments/{number:x}/{title.replace(' ', '_')[:50]}/",
        "rte_mode": "markdown",
        "score": score(chance, 0.7),
        "secure_media_embed": {},
        "selftext": "",
        "subreddit": "reddit.com",
        "subreddit_id": "t5_6",
        "subreddit_name_prefixed": "r/reddit.com",
        "subreddit_type": "archived",
        "thumbnail": "default",
        "title": title,
        "url": url,
        "whitelist_status": "all_ads",
    }
    return dumped(value).replace("/", "\\/")


def modern_line(number: int, chance: random.Random) -> str:
    """A line of later years."""
    subreddit, own = f"subreddit{chance.randrange(20_000)}", chance.random() < 0.45
    title = sentence(chance, chance.randrange(4, 18))
    permalink = f"/r/{subreddit}/comments/{number:x}/{title.replace(' ', '_')[:50]}/"
    url, host = address(number, chance, 0.35)
    value = {
        **dict.fromkeys((FLAGS + LATER_FLAGS).split(), False),
        **dict.fromkeys((NOTHINGS + LATER_NOTHINGS).split()),
        **{name: [] for name in LATER_LISTS.split()},
        **{name: {} for name in ("gildings", "media_embed", "secure_media_embed")},
        **dict.fromkeys(("gilded", "num_crossposts", "total_awards_received", "downs"), 0),
        **dict.fromkeys(("author_flair_type", "link_flair_type"), "text"),
        **dict.fromkeys(("parent_whitelist_status", "whitelist_status"), "all_ads"),
        "author": f"user_{chance.randrange(10**6)}",
        "author_fullname": f"t2_{chance.randrange(10**9):x}",
        "created": 1_585_699_200.0 + number,
        "created_utc": 1_585_699_200 + number,
        "domain": f"self.{subreddit}" if own else host,
        "edited": False,
        "id": f"{number:x}",
        "is_self": own,
        "link_flair_text": "a \u2019flair\u2019" if number % 5 == 0 else None,
        "name": f"t3_{number:x}",
        "num_comments": chance.randrange(90),
        "over_18": chance.random() < 0.12,
        "permalink": permalink,
        "pwls": 6,
        "retrieved_on": 1_588_000_000,
        "score": score(chance, 0.4),
        "selftext": sentence(chance, chance.randrange(90)).replace(" 1", "\n\n") if own else "",
        "subreddit": subreddit,
        "subreddit_id": f"t5_{chance.randrange(10**6):x}",
        "subreddit_name_prefixed": f"r/{subreddit}",
        "subreddit_subscribers": chance.randrange(10**7),
        "subreddit_type": "public",
        "thumbnail": "self" if own else f"https://b.thumbs.redditmedia.com/{number:040x}.jpg",
        "title": title,
        "upvote_ratio": chance.randrange(50, 100) / 100,
        "url": f"https://www.reddit.com{permalink}" if own else url,
        "wls": 6,
    }
    if not own and number % 2:
        value["preview"] = {"enabled": False, "images": [preview(number)]}
    return dumped(value)


def preview(number: int) -> dict[str, Any]:
    def picture(width: int) -> dict[str, Any]:
        url = f"https://preview.redd.it/{number:x}.jpg?width={width}&amp;s={number * 40503:032x}"
        return {"height": width * 2 // 3, "url": url, "width": width}

    sizes = [picture(width) for width in (108, 216, 320)]
    return {"id": f"{number:x}", "resolutions": sizes, "source": picture(640), "variants": {}}


LINES: dict[str, Callable[[int, random.Random], str]] = {"first": first_line, "modern": modern_line}


def links(dump: Path, out: Path) -> int:
    return collect_links([dump], out, LinksConfig(), Reporter(quiet=True)).counts["kept"]


def peer(dump: Path, out: Path) -> int:
    """What the public scripts do."""
    blocked, endings, best = BLOCKED["webtext"], tuple(NOT_TEXT), {}
    for line in text_lines(dump):
        value = json.loads(line)
        if value["is_self"] or value["over_18"] or value["score"] < 3:
            continue
        url = value["url"]
        parts = urlsplit(url)
        labels = (parts.hostname or "").split(".")
        if ".".join(labels[-2:]) in blocked or ".".join(labels[-3:]) in blocked:
            continue
        if len(url) > 8 and not parts.path.lower().endswith(endings):
            best[url] = max(best.get(url, 0), value["score"])
    out.mkdir()
    (out / "urls.txt").write_text("\n".join(best))
    return len(best)


def text_lines(dump: Path) -> Iterator[str]:
    library = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    with dump.open("rb") as raw, library.stream_reader(raw) as stream:
        yield from io.TextIOWrapper(stream, encoding="utf-8")


WAYS: dict[str, Callable[[Path, Path], int]] = {"links": links, "peer": peer}


def in_child(way: str, dump: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", way, str(dump), str(out)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def child(way: str, dump: Path, out: Path) -> None:
    """Run one way and print {"kept", "seconds", "cpu_seconds", "peak_mb"}."""
    used, began = os.times(), time.perf_counter()
    kept = WAYS[way](dump, out)
    seconds, after = time.perf_counter() - began, os.times()
    cpu = sum(after[:4]) - sum(used[:4])
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's as well
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    print(json.dumps({"kept": kept, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
