"""The whole line: counts, splits, equality of results, kills."""

import json
import lzma
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from fault_runs import files_up_to
from page_files import html, rows_of, write_crawl

from gptwo.artifacts import Manifest, read_manifest, verify
from gptwo.corpus.build import LAYOUT, build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import connect
from gptwo.corpus.overlap.wikipedia import excluded
from gptwo.corpus.split import split_of
from gptwo.errors import DataError, ResourceError, UsageError
from gptwo.lock import LOCK
from gptwo.urls import host_of

NOUNS = [
    "river",
    "house",
    "teacher",
    "letter",
    "garden",
    "engine",
    "winter",
    "market",
    "captain",
    "window",
]
VERBS = [
    "found",
    "carried",
    "watched",
    "painted",
    "followed",
    "remembered",
    "repaired",
    "described",
]
PLACES = ("near the harbour", "in the valley", "behind the church", "at the station")


def prose(seed: int, sentences: int = 16) -> str:
    rng = random.Random(seed)

    def sentence() -> str:
        one, two, three = rng.sample(NOUNS, 3)
        return (
            f"The {one} of the {rng.randrange(1000)} people {rng.choice(VERBS)} a {two} "
            f"{rng.choice(PLACES)} and {rng.choice(VERBS)} the {three} until "
            f"{rng.choice(NOUNS)} number {rng.randrange(1000)} was there."
        )

    return "\n\n".join(" ".join(sentence() for _ in range(4)) for _ in range(sentences // 4))


def small_web(folder: Path) -> Path:
    """A crawl with every kind of page that a stage has to set aside."""
    near = prose(1).replace("until", "before", 1)
    pages: dict[str, str] = {
        **{f"http://good.example/{i}": html(prose(i)) for i in range(1, 41)},
        "http://mirror.example/1": html(prose(1)),
        "http://mirror.example/2": html(prose(2)),
        "http://near.example/": html(near),
        "http://short.example/": html("Only a few words stand here, and they are in English."),
        "http://fr.example/": html("Le conseil s'est réuni mardi pour parler du budget. " * 20),
        "http://en.wikipedia.org/wiki/A": html(prose(50)),
        "http://moved.example/": "",
        "http://empty.example/": "<html><body></body></html>",
    }
    scores = {"http://mirror.example/2": 90}
    visits = [(url, url, scores.get(url, 5)) for url in pages if url != "http://moved.example/"]
    visits.append(("http://moved.example/", "http://de.wikipedia.org/wiki/B", 5))
    pages["http://de.wikipedia.org/wiki/B"] = html(prose(51))
    return write_crawl(folder, visits, {url: page.encode() for url, page in pages.items()})


def test_every_stage_takes_its_share(tmp_path: Path) -> None:
    web, out = small_web(tmp_path / "pages"), tmp_path / "corpus"
    manifest = build_corpus([web], out, CorpusConfig(), workers=2)
    stages = {entry["stage"]: entry for entry in manifest.counts["stages"]}
    assert list(stages) == [
        "read", "extract", "language", "rules", "exact-dedup", "near-dedup", "wikipedia", "split",
    ]  # fmt: skip
    assert {name: entry["dropped"] for name, entry in stages.items() if entry["dropped"]} == {
        "extract": {"no-main-text": 1},
        "language": {"other-language": 1},
        "rules": {"too-short": 1},
        "exact-dedup": {"exact-copy": 2},
        "near-dedup": {"near-copy": 1},
        "wikipedia": {"excluded-host": 2},
    }
    counts = list(stages.values())
    assert counts[0]["in"] == 48 and counts[-1]["out"] == 40
    assert all(a["out"] == b["in"] for a, b in pairwise(counts))

    kept = {split: rows_of(out, split) for split in ("train", "valid", "test")}
    assert {split: len(rows) for split, rows in kept.items()} == manifest.counts["documents"]
    assert manifest.counts["characters"] == {
        split: sum(len(row["text"]) for row in rows) for split, rows in kept.items()
    }
    for split, rows in kept.items():
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        assert all(split_of(row["id"], row["url"], CorpusConfig()) == split for row in rows)
    urls = {row["url"] for rows in kept.values() for row in rows}
    assert "http://mirror.example/2" in urls and "http://good.example/2" not in urls  # score wins
    row = kept["train"][0]
    assert list(row) == ["id", "url", "text", "score", "date", "lang", "source", "meta"]
    assert (row["lang"], row["source"], row["date"]) == ("en", "pages", "2017-01-01")

    dropped = {row["url"]: row for row in rows_of(out, "dropped")}
    assert len(dropped) == 8 and list(next(iter(dropped.values())))[-3:] == [
        "stage", "reason", "detail",
    ]  # fmt: skip
    assert dropped["http://good.example/2"]["detail"].endswith(" http://mirror.example/2")
    moved = dropped["http://moved.example/"]
    assert (
        moved["detail"] == "de.wikipedia.org" and "wiki/B" in json.loads(moved["meta"])["final_url"]
    )
    assert verify(out)["folders"] == 1 and not (out / ".work").exists()


@pytest.mark.slow
def test_the_same_for_any_number_of_workers_and_order(tmp_path: Path) -> None:
    web = small_web(tmp_path / "pages")
    lines = tmp_path / "lines.jsonl"
    texts = [prose(i % 100 + 100) for i in range(150)]
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made: list[Manifest] = []
    for workers, sources in ((1, [web, lines]), (2, [lines, web]), (3, [web, lines, web])):
        out = tmp_path / f"corpus-{workers}"
        made.append(build_corpus(sources, out, CorpusConfig(), workers=workers))
    assert made[0] == made[1] == made[2]
    assert made[0].counts["stages"][4]["dropped"] == {"exact-copy": 52}


def test_the_same_with_and_without_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut shards become fewer files before they are gathered, in as many steps as it takes."""
    sources = many_sources(tmp_path / "sources")
    plain = build_corpus(sources, tmp_path / "plain", CorpusConfig(), workers=1)
    monkeypatch.setattr("gptwo.corpus.split.MERGED", 2)
    assert build_corpus(sources, tmp_path / "merged", CorpusConfig(), workers=2) == plain


def test_a_crawl_that_arrived_in_another_order_is_the_same_corpus(tmp_path: Path) -> None:
    pages = {f"http://a.example/{i}": html(prose(i)).encode() for i in range(1, 8)}
    visits = [(url, url, 5) for url in pages]
    prints = []
    for name, order in (("one", list(pages)), ("two", list(reversed(pages)))):
        web = write_crawl(tmp_path / name / "pages", visits, {url: pages[url] for url in order})
        out = tmp_path / name / "corpus"
        prints.append(build_corpus([web], out, CorpusConfig(), workers=1).fingerprint)
    assert prints[0] == prints[1]


def test_finished_is_finished_and_other_settings_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": prose(i)}) + "\n" for i in range(20)))
    config = CorpusConfig(language="", rules="none")
    first = build_corpus([source], tmp_path / "c", config, workers=1)
    changed = (tmp_path / "c" / "manifest.json").stat().st_mtime_ns
    assert build_corpus([source], tmp_path / "c", config, workers=2) == first
    assert (tmp_path / "c" / "manifest.json").stat().st_mtime_ns == changed
    with pytest.raises(UsageError, match="rules"):
        build_corpus([source], tmp_path / "c", CorpusConfig(language=""))


def many_sources(folder: Path) -> list[Path]:
    """A crawl and six files of lines, each a shard of its own; some texts stand in two of them."""
    sources = [small_web(folder / "pages")]
    for number in range(6):
        path = folder / f"lines-{number}.jsonl"
        texts = [prose(100 + number * 30 + i) for i in range(40)]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sources.append(path)
    return sources


def build_command(out: Path, sources: list[Path], workers: int = 2) -> list[str]:
    script = str(Path(__file__).with_name("build_script.py"))
    return [sys.executable, script, str(workers), str(out), *map(str, sources)]


def finished_work(out: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every work file that has its final name."""
    found = {}
    for path in out.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and ".tmp-" not in path.name and path.name != LOCK:
                found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    sources = many_sources(tmp_path)
    expected = build_corpus(sources, tmp_path / "whole", CorpusConfig(), workers=2)
    out, rng = tmp_path / "killed", random.Random(0)
    command = build_command(out, sources)
    made: dict[Path, tuple[int, int]] = {}
    survivors = []
    for turn in range(3):
        process = psutil.Popen(command)
        more = len(made) + rng.randrange(1, 14)
        while len(finished_work(out)) < more and process.poll() is None:
            time.sleep(0.002)
        children = process.children(recursive=True) if process.is_running() else []
        process.send_signal(signal.SIGKILL)
        for child in children if turn % 2 else ():  # all at once; else they must notice
            with suppress(psutil.NoSuchProcess):
                child.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        survivors += psutil.wait_procs(children, timeout=10)[1]
        found = finished_work(out)
        assert made.items() <= found.items(), "finished work was done again"
        made = found
    assert subprocess.run(command, check=False).returncode == 0
    assert read_manifest(out) == expected and verify(out)
    assert not survivors and made


@pytest.mark.slow
def test_killed_workers_change_nothing(tmp_path: Path) -> None:
    sources = many_sources(tmp_path)
    expected = build_corpus(sources, tmp_path / "whole", CorpusConfig(), workers=2)
    out, rng, killed = tmp_path / "killed", random.Random(1), 0
    process = psutil.Popen(build_command(out, sources))
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            server = [c for c in process.children() if "forkserver" in " ".join(c.cmdline())]
            workers = server[0].children() if server else []
            if workers and killed < 6 and rng.random() < 0.2:
                rng.choice(workers).kill()
                killed += 1
        time.sleep(0.05)
    assert process.wait() == 0 and killed >= 4
    assert read_manifest(out) == expected


@pytest.mark.slow
def test_a_disk_that_fills_up_is_survived(tmp_path: Path) -> None:
    """Row 4: files of 200 kB are too large, as on a full disk; then there is room."""
    source, out = tmp_path / "texts.jsonl", tmp_path / "corpus"
    texts = [prose(i, sentences=800) for i in range(30)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with files_up_to(200_000):
        failed = subprocess.run(
            build_command(out, [source]), check=False, capture_output=True, text=True
        )
    assert failed.returncode and "ResourceError" in failed.stderr
    assert not list(out.rglob("*.tmp-*"))
    assert not (out / "manifest.json").exists()
    expected = build_corpus([source], tmp_path / "whole", CorpusConfig(), workers=2)
    assert build_corpus([source], out, CorpusConfig(), workers=2) == expected


def test_a_join_that_finds_no_room_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="finds no room"), connect(tmp_path) as database:
        database.execute("SET memory_limit = '20MB'")
        database.execute("SET max_temp_directory_size = '0KB'")
        database.execute(
            "SELECT row_number() OVER (PARTITION BY n % 7 ORDER BY n), n FROM range(9000000) t(n)"
        ).fetchall()


@pytest.mark.slow
def test_clock_zone_locale_hashes_and_umask_change_nothing(tmp_path: Path) -> None:
    """Row 17: nothing around a run gets into its result."""
    sources = many_sources(tmp_path)[:3]
    expected = build_corpus(sources, tmp_path / "usual", CorpusConfig(), workers=2)
    clock = tmp_path / "clock" / "sitecustomize.py"
    clock.parent.mkdir()
    clock.write_text("import time\nnow = time.time\ntime.time = lambda: 1e9 - now()\n")
    here = str(Path(__file__).parents[2])
    strange = {
        "PYTHONPATH": f"{clock.parent}{os.pathsep}{here}",
        "PYTHONHASHSEED": "77",
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C",
        "LANG": "tr_TR.UTF-8",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    out = tmp_path / "strange"
    command = build_command(out, sources, workers=1)
    subprocess.run(command, check=True, env=os.environ | strange, umask=0o077)
    assert read_manifest(out) == expected
    assert (out / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_interrupted_work_is_not_done_again(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": prose(i)}) + "\n" for i in range(20)))
    out = tmp_path / "corpus"
    command = [sys.executable, str(Path(__file__).with_name("build_script.py")), "1", str(out)]
    process = subprocess.Popen([*command, str(source)])
    shard = out / ".work" / LAYOUT / "clean" / "00000-00000.parquet"
    while not shard.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)  # look at it while it stands still
    stamp = shard.stat().st_mtime_ns if shard.exists() else 0
    held = os.open(shard, os.O_RDONLY) if stamp else -1
    process.kill()
    process.wait()
    assert stamp, "the build was too quick to be caught"
    seen = shard.stat().st_ino
    build_corpus([source], out, CorpusConfig(), workers=1)
    assert os.fstat(held).st_ino == seen
    os.close(held)


def test_a_corpus_of_nothing_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps({"text": "Too short."}) + "\n")
    with pytest.raises(DataError, match=r"none of 1 documents is kept \(.+ 1\)"):
        build_corpus([source], tmp_path / "c", CorpusConfig())
    assert not (tmp_path / "c/manifest.json").exists()
    loose = CorpusConfig(rules="none", language="", test_share=0, valid_share=0)
    assert build_corpus([source], tmp_path / "c", loose).counts["documents"]["train"] == 1


def test_split_shares_and_stability() -> None:
    config = CorpusConfig()
    urls = [f"http://site{i}.example/page" for i in range(20_000)]
    counts = Counter(split_of("", url, config) for url in urls)
    assert abs(counts["valid"] / 20_000 - 0.05) < 0.005
    assert abs(counts["test"] / 20_000 - 0.05) < 0.005
    assert split_of("x", "https://www.A.example/p/?b=2&a=1&utm_source=r#top", config) == split_of(
        "y", "http://a.example/p?a=1&b=2", config
    )
    assert split_of("x", "http://[bad", config) == split_of("y", "http://[bad", config)
    everything = CorpusConfig(valid_share=0, test_share=0)
    assert {split_of("", url, everything) for url in urls[:100]} == {"train"}


@pytest.mark.parametrize(
    ("url", "out"),
    [
        ("http://en.wikipedia.org/wiki/A", True),
        ("https://wikipedia.org", True),
        ("http://de.m.wikipedia.org.:80/", True),
        ("http://wikipedia.example/", True),
        ("http://www.wikiwand.com/en/A", True),
        ("http://notwikipedia.org/", False),
        ("http://example.org/wikipedia.org", False),
        ("", False),
    ],
)
def test_wikipedia_by_host(url: str, out: bool) -> None:
    assert excluded(host_of(url), CorpusConfig().excluded_hosts) == out


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_document_bytes", 0),
        ("max_damaged_share", 1.5),
        ("extractor", "magic"),
        ("document_seconds", 0),
        ("document_memory_mb", 1),
        ("language_threshold", 2),
        ("rules", "strict"),
        ("near_duplicate_similarity", 0),
        ("valid_share", 0.99),
    ],
)
def test_settings_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        CorpusConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.slow
def test_real_news_and_a_real_archive(tmp_path: Path, data_dir: Path) -> None:
    cut = tmp_path / "news.jsonl"
    with lzma.open(data_dir / "text" / "news_articles_3824.jsonl.xz", "rt") as handle:
        cut.write_text("".join(line for line, _ in zip(handle, range(300), strict=False)))
    archive = tmp_path / "cut.warc.gz"
    whole = (data_dir / "warc" / "example_archiveorg_2008.warc.gz").read_bytes()
    archive.write_bytes(whole[:600_000])
    manifest = build_corpus([archive, cut], tmp_path / "corpus", CorpusConfig(), workers=2)
    stages = {entry["stage"]: entry for entry in manifest.counts["stages"]}
    assert stages["read"]["dropped"]["damaged"] == 1  # where the archive was cut
    assert stages["split"]["out"] > 200
    sources = Counter(row["source"] for row in rows_of(tmp_path / "corpus", "train"))
    assert set(sources) == {"cut.warc.gz", "news.jsonl"}
