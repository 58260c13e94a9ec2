"""decontaminate: what evaluation sets hold is taken out of the corpus, and how much is told.

N-grams find where a document and a set share words (`overlap`); hits that follow each other make
a passage. A chance phrase is short: in news and old books shared passages have 8 to 10 words, or
they are quotations of 16 and more. So a passage counts from 13 words (what GPT-3 took for its
n-grams) or from three quarters of an example. As in GPT-3 an n-gram in more than 10 documents is a
common phrase; a passage of nothing else counts only when it is most of an example.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptwo.artifacts import write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import connect, names, spill_folder, write_queries
from gptwo.corpus.duplicates.passages import LEAST_LEFT, of_rows
from gptwo.corpus.overlap.hits import Index, open_index
from gptwo.corpus.shards import Draft, document_id, read_table, write_table
from gptwo.pool import Task

MOST_OF = 0.75  # of an example
MOST_CUTS = 10  # in a document; more, and it is dropped (GPT-3)
SHOWN = 200  # characters of a passage in `detail`

SPANS = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("set", pa.string()),
        ("example", pa.int64()),
        ("begin", pa.int64()),
        ("end", pa.int64()),
        ("words", pa.int64()),
        ("action", pa.string()),
    ]
)


def common_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Which n-grams are in too many documents to be a set's; `task.input` is all tables of hits."""
    query = f"""
        SELECT gram FROM read_parquet($1) GROUP BY gram
        HAVING count(DISTINCT row) > {config.decontaminate_common} ORDER BY gram
    """
    with connect(spill_folder(task)) as database:
        write_queries(database, [query], [names(task.input)], task.output)


def spans_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """What is to be taken out of a shard's documents; `task.input` is `(hits, common, index)`.

    Beside it, written before: which n-grams of the sets stay in documents that stay.
    """
    hits_path, common_path, index_path = task.input
    index, table = open_index(index_path), read_table(hits_path)
    common = read_table(common_path)["gram"].to_numpy()
    hits = {
        name: table[name].to_numpy() for name in table.schema.names if name not in ("id", "url")
    }
    rare = ~np.isin(hits["gram"], common)
    taken = np.zeros(len(rare), np.bool_)
    spans: list[dict[str, Any]] = []
    edges = np.flatnonzero(np.diff(hits["row"], prepend=-1, append=-1))
    for start, end in pairwise(edges.tolist()):
        found = []
        for first, last in passages(hits, start, end, index):
            passage = _passage(hits, first, last, index)
            if _counts(passage, bool(rare[first : last + 1].any()), config):
                found.append(passage)
                taken[first : last + 1] = True
        action = _action(found, int(hits["length"][start]), config) if found else ""
        if action == "drop":
            taken[start:end] = True
        document = {name: table[name][start].as_py() for name in ("row", "id", "url")}
        spans += [{**document, **passage, "action": action} for passage in found]
    left = pa.table({"gram": np.unique(hits["gram"][~taken])})
    write_table(left_file(task.output), left)
    write_table(task.output, pa.Table.from_pylist(spans, SPANS))


def left_file(spans: Path) -> Path:
    """The table that lies beside what `spans_file` writes last."""
    return spans.with_name(f"left-{spans.name}")


def passages(
    hits: dict[str, NDArray[Any]], start: int, end: int, index: Index
) -> Iterator[tuple[int, int]]:
    """The first and last hit of each passage in one document, hits[start:end].

    Hits that overlap or touch are one passage; so are hits of one piece with a few other words
    between them, fewer than an n-gram has: there the document, or the set, was edited.
    """
    word, gram = hits["word"], hits["gram"]
    first = start
    for hit in range(start + 1, end):
        step = word[hit] - word[hit - 1]
        near = step <= index.words or (
            step < 2 * index.words and index.share_a_piece(gram[hit - 1], gram[hit])
        )
        if not near:
            yield first, hit - 1
            first = hit
    yield first, end - 1


def _passage(hits: dict[str, NDArray[Any]], first: int, last: int, index: Index) -> dict[str, Any]:
    counts = Counter(hits["piece"][first : last + 1].tolist())
    piece = min(counts, key=lambda piece: (-counts[piece], piece))
    steps = np.diff(hits["word"][first : last + 1])
    shared = int(np.minimum(steps, index.words).sum()) + index.words  # without words between
    return {
        "set": index.sets[index.pieces["set"][piece].as_py()]["set"],
        "example": index.pieces["number"][piece].as_py(),
        "begin": int(hits["begin"][first]),
        "end": int(hits["end"][last]),
        "words": shared,
        "whole": index.pieces["whole"][piece].as_py(),
    }


def _counts(passage: dict[str, Any], rare: bool, config: CorpusConfig) -> bool:
    most = passage["words"] >= MOST_OF * passage["whole"]
    return most or (rare and passage["words"] >= config.decontaminate_least_words)


def _action(found: list[dict[str, Any]], length: int, config: CorpusConfig) -> str:
    left = length - sum(passage["end"] - passage["begin"] for passage in found)
    cut = config.decontaminate_action == "cut" and len(found) <= MOST_CUTS and left >= LEAST_LEFT
    return "cut" if cut else "drop"


def contaminated_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The same for people: in order of ids, which hold for the text before it was cut."""
    query = "SELECT * EXCLUDE (row) FROM read_parquet($1) ORDER BY id, url, begin, set, example"
    with connect(task.input.parent / "spill") as database:  # the output is for people to see
        write_queries(database, [query], [str(task.input)], task.output)


def decontaminate(
    drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None], *, spans: Path
) -> None:
    """The stage that drops or cuts what a table of spans names."""
    found = of_rows(spans, drafts)
    for number, draft in enumerate(drafts):
        at(number)
        if draft.row not in found:
            continue
        parts = found[draft.row]
        if parts[0]["action"] == "drop":
            longest = max(parts, key=lambda part: part["words"])
            words = " ".join(draft.text[longest["begin"] : longest["end"]].split())
            more = f" (and {len(parts) - 1} more)" if len(parts) > 1 else ""
            shown = words if len(words) <= SHOWN else f"{words[:SHOWN]}..."
            place = f"{longest['set']} {longest['example']}"
            draft.drop("contaminated", f"{place}, {longest['words']} words{more}: {shown}")
        else:
            draft.text = cut_out(draft.text, [(part["begin"], part["end"]) for part in parts])
            draft.id = document_id(draft.text)


def cut_out(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without some spans, an empty line in place of each.

    With a span of words go the marks that touch it, up to white space.
    """
    kept, place = [], 0
    for begin, end in spans:
        while begin > place and not (text[begin - 1].isspace() or text[begin - 1].isalnum()):
            begin -= 1
        while end < len(text) and not (text[end].isspace() or text[end].isalnum()):
            end += 1
        kept.append(text[place:begin].strip())
        place = end
    kept.append(text[place:].strip())
    return "\n\n".join(part for part in kept if part)


def table_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """How much of each set was found and is left, as JSON; `task.input` is index, hits, spans."""
    index_path, hits, spans = task.input
    index = open_index(index_path)
    before, after = np.zeros((2, len(index.hashes)), np.bool_)
    for path in hits:
        before[read_table(path, ["gram"])["gram"].to_numpy()] = True
    for path in spans:
        after[read_table(left_file(path))["gram"].to_numpy()] = True
    query = """
        SELECT set, count(DISTINCT example) AS examples_hit, count(DISTINCT row) AS documents,
               count(*) AS passages FROM read_parquet($1) GROUP BY set
    """
    with connect(spill_folder(task)) as database:
        found = database.sql(query, params=[names(spans)]).to_arrow_table().to_pylist()
    of_set = {row.pop("set"): row for row in found}
    nothing = {"examples_hit": 0, "documents": 0, "passages": 0}
    owner, rows = index.pieces["set"].to_numpy()[index.held[1]], []
    for number, size in enumerate(index.sets):
        own = np.unique(index.held[0, owner == number])
        counts = {"found": int(before[own].sum()), "left": int(after[own].sum())}
        shares = {f"{name}_share": round(n / max(len(own), 1), 6) for name, n in counts.items()}
        rows.append({**size, **counts, **shares, **of_set.get(size["set"], nothing)})
    write_json(task.output, {"sets": rows})
