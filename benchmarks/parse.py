"""How fast pages are parsed, and how alike, beside resiliparse's lexbor: prints JSON.

usage: python benchmarks/parse.py DATA [--turns 5]

DATA is a folder with `html/*/pages.tar.xz`. Both parse the same UTF-8 bytes in one process, in
turns; a rate is megabytes per second of processor time, the best of the turns. Ours makes a flat
tree with the texts and the attributes that extraction reads, lexbor a full DOM. `same_text` is the
share of pages whose text, white space and scripts aside, is the same; `same_blocks` the share of
the characters of those pages that lie in the same blocks (nesting of div, p, li, td and the like).
"""

import argparse
import json
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from resiliparse.parse.html import HTMLTree, NodeType

from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.html_tags import BIT, PROPERTY, TAGS
from gptwo.native import _html  # type: ignore[import-not-found]
from gptwo.world import machine

LEFT_OUT = {"script", "style", "template"}
BLOCKS = {
    tag for tag, is_ in zip(TAGS, PROPERTY, strict=True) if is_ & (BIT["SPECIAL"] | BIT["PLAIN"])
}
BLOCKS -= {"html", "head", "body", "tbody"}  # implied here and there

Text = list[tuple[str, tuple[str, ...]]]  # letters, and the blocks they are in


def read_pages(archive: Path) -> Iterator[bytes]:
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile() and member.name.endswith(".html"):
                page = members.extractfile(member)
                assert page is not None
                yield decode(page.read()).encode("utf-8", "replace")


def seconds(job: Callable[[bytes], Any], pages: list[bytes]) -> float:
    began = time.process_time()
    for page in pages:
        job(page)
    return time.process_time() - began


def lexbor(page: bytes) -> HTMLTree:
    return HTMLTree.parse_from_bytes(page, "utf-8")


def our_text(page: bytes) -> Text:
    nodes = _html.parse(page)
    blocks: list[tuple[str, ...]] = []
    found: Text = []
    skip_to = 0
    for at, (number, parent, last, _, text, _) in enumerate(nodes):
        tag, above = TAGS[number], blocks[parent] if parent >= 0 else ()
        blocks.append((*above, tag) if tag in BLOCKS else above)
        if tag in LEFT_OUT:
            skip_to = max(skip_to, last)
        if at >= skip_to and text:
            found.append(("".join(text.split()), above))
    return found


def lexbor_text(page: bytes) -> Text:
    root = lexbor(page).document
    found: Text = []
    waiting: list[tuple[Any, tuple[str, ...]]] = [(root.first_child if root else None, ())]
    while waiting:
        node, above = waiting.pop()
        if node is None:
            continue
        waiting.append((node.next, above))
        if node.type in (NodeType.TEXT, NodeType.CDATA_SECTION):
            found.append(("".join((node.value or "").split()), above))
        elif node.type == NodeType.ELEMENT and node.tag not in LEFT_OUT:
            waiting.append((node.first_child, (*above, node.tag) if node.tag in BLOCKS else above))
    return found


def likeness(pages: list[bytes]) -> dict[str, float]:
    same_text = letters = same = 0
    for page in pages:
        ours, theirs = our_text(page), lexbor_text(page)
        if "".join(text for text, _ in ours) != "".join(text for text, _ in theirs):
            continue
        same_text += 1
        a, b = (list(chain.from_iterable([path] * len(t) for t, path in x)) for x in (ours, theirs))
        letters += len(a)
        same += sum(x == y for x, y in zip(a, b, strict=True))
    return {"same_text": round(same_text / len(pages), 4), "same_blocks": round(same / letters, 6)}


def measure(pages: list[bytes], turns: int) -> dict[str, Any]:
    megabytes = sum(map(len, pages)) / 1e6
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(seconds(_html.count, pages))
        theirs.append(seconds(lexbor, pages))
    return {
        "pages": len(pages),
        "megabytes": round(megabytes, 1),
        "nodes_per_page": round(sum(map(_html.count, pages)) / len(pages)),
        "ours_mb_per_second": round(megabytes / min(ours)),
        "lexbor_mb_per_second": round(megabytes / min(theirs)),
        "ratio": round(min(theirs) / min(ours), 2),
        **likeness(pages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    archives = sorted((given.data / "html").glob("*/pages.tar.xz"))
    result: dict[str, Any] = {"machine": machine()}
    for archive in archives:
        result[archive.parent.name] = measure(list(read_pages(archive)), given.turns)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
