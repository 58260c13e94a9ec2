"""datasheet.json and datasheet.md: what a corpus is made of, written with it.

Sources, what each stage dropped and why with examples, top domains beside WebText's, languages and
lengths; as the paper's authors told of WebText by its list of domains alone.
"""

import math
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
from tld import get_tld

from gptwo.artifacts import WORK, atomic_write, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import connect
from gptwo.errors import DataError
from gptwo.pool import Task

JSON, MARKDOWN = "datasheet.json", "datasheet.md"
EXAMPLES = 5  # of each reason
EXCERPT_CHARACTERS = 280
MOST_SOURCES = 50
MOST_DOMAINS = 1_000  # as many as OpenAI named
BINS_PER_DECADE, DECADES = 16, 8  # of the lengths: up to 100 million characters

# Links by domain in WebText, the largest (openai/gpt-2, domains.txt); the whole list is put in its
# place by the setting `top_domains`.
WEBTEXT_DOMAINS = {
    **{"google": 1_542_261, "archive": 596_207, "blogspot": 456_344, "github": 414_695},
    **{"nytimes": 333_160, "wordpress": 321_622, "washingtonpost": 315_368, "wikia": 313_137},
    **{"bbc": 311_917, "theguardian": 246_303, "ebay": 210_714, "pastebin": 209_416},
}


def datasheet_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Both files, from finished splits. `task.input` is the manifest's counts."""
    out = task.output.parent
    with connect(out / WORK / "datasheet") as database:
        write_datasheet(database, out, task.input, config.top_domains)


def write_datasheet(
    database: duckdb.DuckDBPyConnection, out: Path, counts: dict[str, Any], top_domains: str
) -> dict[str, Any]:
    """Write both files beside the finished splits of `out`; returns what datasheet.json holds.

    `counts` are the manifest's; `top_domains` a file of lines `COUNT NAME`, or "" for the largest
    of WebText. Raises `DataError` for a file that is none.
    """
    sheet = describe(database, out, counts, read_domains(top_domains))
    with atomic_write(out / MARKDOWN, "w") as handle:
        handle.write(as_markdown(sheet))
    write_json(out / JSON, sheet)  # last: a task is done when its output is there
    return sheet


def read_domains(path: str) -> dict[str, int]:
    """Links by domain, most first."""
    if not path:
        return WEBTEXT_DOMAINS
    found = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy="name a text file") from error
    for number, line in enumerate(lines, 1):
        count, _, name = line.strip().partition(" ")
        if count and not count.isdigit():
            raise DataError(
                f"{path} line {number} is {line[:60]!r}, expected a count and a domain",
                remedy="name a list like OpenAI's domains.txt",
            )
        if count:
            found[name.strip()] = int(count)  # OpenAI's list has one without a name
    return found


def describe(
    database: duckdb.DuckDBPyConnection, out: Path, counts: dict[str, Any], webtext: dict[str, int]
) -> dict[str, Any]:
    """The facts, from the part files of every split and of what was dropped."""
    _list_documents(database, out)
    return {
        "sources": _sources(database),
        "stages": _stages(database, out, counts["stages"]),
        "documents": counts["documents"],
        "characters": counts["characters"],
        "domains": _domains(database, webtext),
        "languages": _languages(database),
        "lengths": {"bins_per_decade": BINS_PER_DECADE, "documents": _lengths(database)},
    }


def _list_documents(database: duckdb.DuckDBPyConnection, out: Path) -> None:
    """A table with a slim row for every document, kept or not: DuckDB spills it where it must."""
    kept = [str(path) for path in sorted(out.glob("t*/part-*.parquet"))]
    kept += [str(path) for path in sorted(out.glob("valid/part-*.parquet"))]
    dropped = [str(path) for path in sorted(out.glob("dropped/part-*.parquet"))]
    columns = """
        split_part(source, '/', 1) AS source, lang, length(text) AS length,
        regexp_extract(lower(url), '^[a-z]+://([^/?#]*@)?([^/?#:]+)', 2) AS host
    """
    database.execute(
        f"""
        CREATE OR REPLACE TABLE documents AS
        SELECT true AS kept, '' AS stage, {columns} FROM read_parquet($1)
        UNION ALL SELECT false, stage, {columns} FROM read_parquet($2)
        """,
        [kept, dropped],
    )


def _sources(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = database.sql(
        """
        SELECT source, count(*), countif(kept), coalesce(sum(length) FILTER (kept), 0)::BIGINT
        FROM documents GROUP BY source ORDER BY count(*) DESC, source LIMIT $1
        """,
        params=[MOST_SOURCES],
    ).fetchall()
    names = ("source", "read", "kept", "characters")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _stages(
    database: duckdb.DuckDBPyConnection, out: Path, stages: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The manifest's counts, and of each reason the examples with the smallest ids, which are
    hashes: any documents, but always the same."""
    longest = 4 * EXCERPT_CHARACTERS  # much of it may be white space
    rows = database.sql(
        f"""
        SELECT stage, reason, min_by(
            {{url: url, source: source, detail: detail, text: left(text, {longest})}},
            (id, url, source, detail), {EXAMPLES}
        ) FROM read_parquet($1) GROUP BY stage, reason
        """,
        params=[[str(path) for path in sorted(out.glob("dropped/part-*.parquet"))]],
    ).fetchall()
    examples = {(stage, reason): [_shorten(row) for row in found] for stage, reason, found in rows}
    return [
        {
            **{name: stage[name] for name in ("stage", "in", "out")},
            "dropped": {
                reason: {"documents": n, "examples": examples.get((stage["stage"], reason), [])}
                for reason, n in stage["dropped"].items()
            },
        }
        for stage in stages
    ]


def _shorten(example: dict[str, str]) -> dict[str, str]:
    line = " ".join(example["text"].split())
    cut = " …" if len(line) > EXCERPT_CHARACTERS else ""
    return example | {"text": line[:EXCERPT_CHARACTERS] + cut}


def _domains(database: duckdb.DuckDBPyConnection, webtext: dict[str, int]) -> dict[str, Any]:
    """Documents by registered name, the largest of ours and the largest of WebText."""
    documents: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    hosts = database.execute(
        "SELECT host, count(*), sum(length)::BIGINT FROM documents WHERE kept GROUP BY host"
    )
    for host, n, length in iter(hosts.fetchone, None):
        name = domain_of(host)
        documents[name] += n
        characters[name] += length
    unknown = documents.pop("", 0)
    ranks = {name: rank for rank, name in enumerate(webtext, 1)}
    order = sorted(documents, key=lambda name: (-documents[name], name))
    total, listed = documents.total(), sum(n for name, n in documents.items() if name in ranks)
    return {
        "distinct": len(documents),
        "documents_without": unknown,
        "webtext_list": len(webtext),
        "share_on_webtext_list": listed / total if total else None,
        "top": [
            {
                "domain": name,
                "documents": documents[name],
                "characters": characters[name],
                "webtext_rank": ranks.get(name),
            }
            for name in order[:MOST_DOMAINS]
        ],
        "webtext": [
            {"domain": name, "links": n, "documents": documents[name]}
            for name, n in webtext.items()
        ],
    }


def domain_of(host: str) -> str:
    """What was registered under a public suffix, as OpenAI's list names sites.

    >>> domain_of("news.bbc.co.uk"), domain_of("me.blogspot.com"), domain_of("a.example")
    ('bbc', 'blogspot', 'a')
    """
    if not host or host.replace(".", "").isdigit():
        return host
    found = get_tld(f"http://{host}", fail_silently=True, as_object=True, search_private=False)
    if found is not None and not isinstance(found, str):
        return found.domain
    *names, last = host.rstrip(".").split(".")
    return names[-1] if names else last


def _languages(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = database.sql(
        """
        SELECT lang, countif(kept) AS ours, countif(stage = 'language') FROM documents
        WHERE lang != '' GROUP BY lang ORDER BY ours DESC, count(*) DESC, lang
        """
    ).fetchall()
    return [{"language": lang, "kept": kept, "dropped": dropped} for lang, kept, dropped in rows]


def _lengths(database: duckdb.DuckDBPyConnection) -> list[int]:
    """Kept documents by length in characters: bin i begins at 10^(i / BINS_PER_DECADE)."""
    last = BINS_PER_DECADE * DECADES - 1
    rows = database.sql(
        f"""
        SELECT least(floor(log10(greatest(length, 1)) * {BINS_PER_DECADE})::INT, {last}), count(*)
        FROM documents WHERE kept GROUP BY 1
        """
    ).fetchall()
    found = dict(rows)
    return [found.get(i, 0) for i in range(last + 1)]


def as_markdown(sheet: dict[str, Any]) -> str:
    """The same for people; it opens in any editor."""
    documents, characters = (sum(sheet[name].values()) for name in ("documents", "characters"))
    lines = [
        "# Datasheet of this corpus",
        f"{documents:,} documents, {characters:,} characters.",
        "## Splits",
        *_table(
            ("split", "documents", "characters"),
            [(name, n, sheet["characters"][name]) for name, n in sheet["documents"].items()],
        ),
        "## Sources",
        *_table(
            ("source", "documents read", "kept", "characters"),
            [tuple(row.values()) for row in sheet["sources"]],
        ),
        "## Stages",
        *_table(
            ("stage", "in", "out", "dropped"),
            [(s["stage"], s["in"], s["out"], s["in"] - s["out"]) for s in sheet["stages"]],
        ),
        "## What was dropped, and why",
        *(line for stage in sheet["stages"] for line in _reasons(stage)),
        "## Domains",
        *_domain_lines(sheet["domains"]),
        "## Languages",
        *_table(
            ("language", "kept", "dropped for it"),
            [tuple(row.values()) for row in sheet["languages"]],
        ),
        "## Lengths",
        *_length_lines(sheet["lengths"]["documents"]),
    ]
    text = "\n".join(f"\n{line}\n" if line.startswith("#") else line for line in lines)
    return text.strip().replace("\n\n\n", "\n\n") + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [[f"{v:,}" if isinstance(v, int) else _plain(v) for v in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *cells)]


def _plain(value: Any) -> str:
    """A value in a cell of a table or an item of a list: nothing in it may end either."""
    if value is None:
        return ""
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def _reasons(stage: dict[str, Any]) -> list[str]:
    lines = []
    for reason, found in stage["dropped"].items():
        lines.append(f"### {stage['stage']}: {reason}, {found['documents']:,} documents")
        for example in found["examples"]:
            where = example["url"] or example["source"]
            parts = (f"`{_plain(where)}`", _plain(example["detail"]), _plain(example["text"]))
            lines.append("- " + " · ".join(part for part in parts if part not in ("", "``")))
    return lines


def _domain_lines(domains: dict[str, Any]) -> list[str]:
    share = domains["share_on_webtext_list"]
    listed = "" if share is None else f", {share:.1%} of the documents on the list of WebText's"
    ours = [(d["domain"], d["documents"], d["webtext_rank"]) for d in domains["top"][:50]]
    theirs = [tuple(row.values()) for row in domains["webtext"][:50]]
    return [
        f"{domains['distinct']:,} names{listed} {domains['webtext_list']:,} largest; "
        f"{domains['documents_without']:,} documents have no address.",
        "",
        *_table(("ours", "documents", "rank in WebText"), ours),
        "",
        *_table(("WebText's", "links there", "documents here"), theirs),
    ]


def _length_lines(counts: list[int]) -> list[str]:
    """A row a quarter of a decade."""
    step = BINS_PER_DECADE // 4
    groups = iter(counts)
    rows = []
    for place in range(0, len(counts), step):
        n = sum(islice(groups, step))
        low, high = (math.ceil(10 ** (p / BINS_PER_DECADE)) for p in (place, place + step))
        if n:
            rows.append((f"{low:,} to {high - 1:,} characters", n))
    return _table(("length", "documents"), rows)
