"""A small run folder in the formats of the rooms, made up, to test the report alone."""

import json
import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import stage, write_json
from gptwo.corpus.datasheet import write_datasheet

SUBJECTS = ("the council", "our harbour", "a young teacher", "the river", "congress")
VERBS = ("opened", "considered", "rebuilt", "reported on", "paid for", "remembered")
OBJECTS = ("the old bridge", "a bill for public schools", "the winter storm", "peace")
HOSTS = ("gazette.example", "herald.example", "archive.example", "manual.example", "notes.example")
MARKUP = "<script>alert('report')</script> & <b>not bold</b>"
DROPS = {  # stage -> (documents in, reasons)
    "read": (196, {"status": 9, "empty": 3}),
    "extract": (184, {"no-text": 6, "too-slow": 1}),
    "language": (177, {"not-english": 14}),
    "rules": (163, {"too-short": 11, "boilerplate": 4}),
    "exact-dedup": (148, {"duplicate": 17}),
    "near-dedup": (131, {"near-duplicate": 12}),
    "wikipedia": (119, {"wikipedia": 5}),
    "split": (114, {}),
}
SPLITS = {"train": 102, "valid": 6, "test": 6}
STEPS, BATCH_TOKENS = 600, 8192
LINK = {"url": pa.string(), "key": pa.string(), "score": pa.int32(), "date": pa.string()}
DOCUMENT = {
    **{"id": pa.string(), "url": pa.string(), "text": pa.string(), "score": pa.int32()},
    **dict.fromkeys(("date", "lang", "source", "meta"), pa.string()),
}


def make_run(folder: Path, *, demo: bool = False) -> Path:
    """A finished run; with `demo` run.json says that its web is synthetic."""
    chance = random.Random(7)
    _links(folder / "links", chance)
    _pages(folder / "pages", chance)
    _corpus(folder / "corpus", chance)
    _tokens(folder, chance)
    _training(folder, chance)
    _scores(folder / "scores")
    _samples(folder / "samples")
    _describe(folder, demo)
    return folder


def prose(chance: random.Random, sentences: int) -> str:
    """Sentences that look like a newspaper's from a distance."""
    made = [
        f"{chance.choice(SUBJECTS)} {chance.choice(VERBS)} {chance.choice(OBJECTS)}."
        for _ in range(sentences)
    ]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in made)


def _write(path: Path, kinds: dict[str, pa.DataType], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in kinds} for row in rows], schema=pa.schema(kinds.items())
    )
    pq.write_table(table, path, compression="zstd")


def _url(number: int) -> str:
    return f"http://{HOSTS[number % 7 % len(HOSTS)]}/story/{number}"


def _links(folder: Path, chance: random.Random) -> None:
    def row(number: int, reason: str = "") -> dict[str, Any]:
        url = _url(number)
        score = chance.randrange(3, 400) if reason != "low-score" else chance.randrange(3)
        return {"url": url, "key": url, "score": score, "date": "2017-05-04", "reason": reason}

    reasons = {"low-score": 37, "duplicate": 22, "self": 5}
    dropped = [row(500 + i, why) for why, n in reasons.items() for i in range(n)]
    kinds = {**LINK, "source": pa.string()}
    with stage(
        folder, kind="links", config={"min_score": 3}, inputs={"links.jsonl": "a1" * 32}
    ) as s:
        _write(folder / "links.parquet", kinds, [row(i) for i in range(236)])
        _write(folder / "dropped.parquet", {**kinds, "reason": pa.string()}, dropped)
        s.commit(counts={"read": 300, "kept": 236, "dropped": reasons})


def _pages(folder: Path, chance: random.Random) -> None:
    outcomes = {"ok": 196, "http-404": 12, "robots": 11, "timeout": 6, "http-500": 5}
    outcomes |= {"truncated": 4, "content-type": 2}
    names = ("url", "key", "final_url", "outcome", "date", "detail")
    kinds = dict.fromkeys(names, pa.string())
    kinds |= dict.fromkeys(("status", "bytes", "score"), pa.int64())
    rows = []
    for outcome, n in outcomes.items():
        for _ in range(n):
            url = _url(len(rows))
            detail = "" if outcome == "ok" else f"{outcome} after 1 attempt"
            rows.append({"url": url, "key": url, "final_url": url, "outcome": outcome})
            rows[-1] |= {"status": 200, "bytes": chance.randrange(900, 60_000), "detail": detail}
    size = sum(row["bytes"] for row in rows)
    with stage(folder, kind="pages", config={"delay": 0}, inputs={"links": "b2" * 32}) as made:
        _write(folder / "fetched.parquet", kinds, rows)
        counts = {"links": len(rows), "fetched": 196, "outcomes": outcomes, "bytes": size}
        made.commit(counts=counts)


def _corpus(folder: Path, chance: random.Random) -> None:
    def row(number: int, **more: Any) -> dict[str, Any]:
        text = prose(chance, max(3, int(chance.lognormvariate(3.4, 0.8))))
        url = _url(number)
        same = {"id": f"{number:032x}", "url": url, "text": text, "score": 4, "lang": "en"}
        return same | {"source": "pages", "meta": "{}", "date": "2017-05-04"} | more

    stages, dropped, numbers = [], [], iter(range(10_000))
    for name, (came, reasons) in DROPS.items():
        left = came - sum(reasons.values())
        stages.append({"stage": name, "in": came, "out": left, "dropped": reasons})
        for reason, n in reasons.items():
            kept = f"http://gazette.example/story/{len(dropped)}" if "dup" in reason else "0.31"
            more = {"stage": name, "reason": reason, "detail": kept}
            dropped += [row(next(numbers), **more) for _ in range(n)]
    dropped[12]["text"] = MARKUP
    dropped[13] |= {"text": "", "detail": MARKUP}
    kinds = {**DOCUMENT, **dict.fromkeys(("stage", "reason", "detail"), pa.string())}
    characters = {}
    with stage(
        folder, kind="corpus", config={"rules": "webtext"}, inputs={"pages": "c3" * 32}
    ) as s:
        _write(folder / "dropped/part-00000.parquet", kinds, dropped)
        for split, n in SPLITS.items():
            rows = [row(next(numbers)) for _ in range(n)]
            if split == "test":
                rows[0]["text"] = f"The café said {MARKUP}. " + rows[0]["text"]
            characters[split] = sum(len(row["text"]) for row in rows)
            _write(folder / split / "part-00000.parquet", DOCUMENT, rows)
        counts = {"stages": stages, "documents": dict(SPLITS), "characters": characters}
        with duckdb.connect() as database:
            write_datasheet(database, folder, counts, "")
        overlap = {"set": "lambada/lambada_test", "examples": 5153, "documents": 2}
        overlap |= {"found_share": 0.0125, "left_share": 0.001, "examples_hit": 3}
        s.commit(counts=counts, details={"overlap": [overlap]})


@cache
def _alphabet() -> dict[int, str]:
    """GPT-2's printable letter of each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {b: chr(256 + i) for i, b in enumerate(rest)}


def _printable(text: str) -> str:
    return "".join(_alphabet()[byte] for byte in text.encode())


def _tokens(run: Path, chance: random.Random) -> None:
    """Single bytes, and the words of the made-up prose with their leading space."""
    words = sorted({w for part in (SUBJECTS, VERBS, OBJECTS) for p in part for w in p.split()})
    alphabet = [*(_printable(chr(b)) if b < 128 else "" for b in range(256))]
    high = [_printable("é")[0], _printable("é")[1]]
    names = [name for name in alphabet if name] + high + [_printable(f" {word}") for word in words]
    vocabulary = {name: index for index, name in enumerate([*names, "<|endoftext|>"])}
    with stage(run / "tokenizer", kind="tokenizer", config={"vocab_size": 4096}, inputs={}) as made:
        write_json(run / "tokenizer/encoder.json", vocabulary)
        details = {"fingerprint": "d4" * 32, "vocab_size": len(vocabulary), "ties": "printable"}
        made.commit(counts={"merges": len(words)}, details=details)
    eot = vocabulary["<|endoftext|>"]
    with stage(run / "tokens", kind="tokens", config={}, inputs={"corpus": "e5" * 32}) as made:
        counts = {}
        for split, n in SPLITS.items():
            table = pq.read_table(run / "corpus" / split / "part-00000.parquet", columns=["text"])
            ids = []
            for text in table["text"].to_pylist():
                ids += [eot, *_encode(text, vocabulary)]
            data = b"".join(i.to_bytes(2, "little") for i in ids)
            (run / "tokens" / f"{split}-00000.bin").write_bytes(data)
            size = sum(len(text.encode()) for text in table["text"].to_pylist())
            counts[split] = {"tokens": len(ids), "documents": n, "bytes": size}
        details = {"dtype": "uint16", "vocab_size": len(vocabulary), "eot": eot}
        made.commit(counts=counts, details=details | {"tokenizer_fingerprint": "d4" * 32})


def _encode(text: str, vocabulary: dict[str, int]) -> list[int]:
    ids = []
    for word in text.replace(" ", "\0 ").split("\0"):
        name = _printable(word)
        ids += [vocabulary[name]] if name in vocabulary else [vocabulary[c] for c in name]
    return ids


def _training(run: Path, chance: random.Random) -> None:
    model = {"vocab_size": 4096, "n_ctx": 256, "n_layer": 4, "n_head": 4, "n_embd": 192}
    training = {
        "steps": STEPS,
        "batch_tokens": BATCH_TOKENS,
        "micro_batch": 8,
        "lr": 2e-3,
        "seed": 0,
    }
    inputs = {"tokens": "f6" * 32, "tokenizer": "d4" * 32}
    plan = {"training": training, "model": model, "inputs": inputs, "parameters": 2_615_808}
    write_json(run / "training.json", plan | {"world": {"device": "cpu", "threads": 2}})
    metrics, timings = [], []
    for step in range(1, STEPS + 1):
        loss = 3.4 + 5.0 * math.exp(-step / 90) + chance.gauss(0, 0.05)
        rate = 2e-3 * min(step / 60, 0.55 + 0.45 * math.cos(math.pi * step / STEPS))
        line = {"step": step, "tokens": step * BATCH_TOKENS}
        metrics.append(line | {"loss": loss, "lr": rate, "grad_norm": 0.5 + chance.random() / 4})
        if step % 50 == 0:
            metrics.append(line | {"valid_loss": 3.52 + 5.0 * math.exp(-step / 90)})
        pace = 19_500 + chance.gauss(0, 500)
        timings.append({"step": step, "seconds": BATCH_TOKENS / pace, "tokens_per_second": pace})
        timings[-1] |= {"mfu": 0.41 + chance.gauss(0, 0.01), "memory_mb": 1240}
    for name, lines in (("metrics", metrics), ("timings", timings)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run / f"{name}.jsonl").write_text(text, encoding="utf-8")
    _on_the_way(run)
    folder = run / f"checkpoints/step-{STEPS:08d}"
    config = {"training": training, "model": model}
    with stage(folder, kind="checkpoint", config=config, inputs=inputs) as made:
        write_json(folder / "state.json", {"step": STEPS})
        made.commit(counts={"step": STEPS, "tokens": STEPS * BATCH_TOKENS, "parameters": 2_615_808})


def _on_the_way(run: Path) -> None:
    """Samples at held-out losses, and the search for the rate."""
    chance = random.Random(5)
    lines = [
        {"step": step, "prompt": prompt, "text": f" {step}: {prose(chance, 2)}", "tokens": 64}
        for step in range(0, STEPS + 1, 50)
        for prompt in ("The", "")
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "samples.jsonl").write_text(text, encoding="utf-8")
    losses = {1: {5e-4: 4.9, 1e-3: 4.5, 2e-3: 4.2, 4e-3: 4.15, 8e-3: None}}
    losses[2] = {2e-3: 3.8, 4e-3: 3.85}
    trials = [
        {"round": number, "lr": rate, "steps": 12 * number, "valid_loss": loss}
        for number, found in losses.items()
        for rate, loss in found.items()
    ]
    write_json(run / "tune.json", {"asked": {}, "trials": trials, "chosen": {"lr": 2e-3}})


def _scores(folder: Path) -> None:
    sizes = ("117M", "345M", "762M", "1542M")
    lambada = ((35.13, 0.4599), (15.60, 0.5548), (10.87, 0.6012), (8.63, 0.6324))
    published = {"prior SOTA": {"perplexity": 99.8, "filtered_accuracy": 0.5923}}
    published |= {
        size: {"perplexity": perplexity, "filtered_accuracy": accuracy}
        for size, (perplexity, accuracy) in zip(sizes, lambada, strict=True)
    }
    _score(
        folder,
        "lambada",
        {
            "accuracy": (0.052, 0.046, 0.058),
            "last_token_accuracy": (0.131, 0.122, 0.141),
            "filtered_accuracy": (0.081, 0.074, 0.089),
            "perplexity": (2124.0, 1702.0, 2650.0),
            "cut_contexts": (0.0,),
        },
        5153,
        baselines={"most frequent content word": {"accuracy": 0.013}},
        paper=published,
    )
    wiki = dict(zip(sizes, (29.41, 22.76, 19.93, 18.34), strict=True))
    found = {"perplexity": (611.0, 560.0, 660.0), "token_perplexity": (88.0, 80.0, 97.0)}
    found |= {"bits_per_byte": (1.71, 1.65, 1.77), "tokens": (412_345.0,)}
    found |= {f"raw_{name}": value for name, value in found.items()}
    _score(
        folder,
        "wikitext2",
        found,
        62,
        baselines={"xz": {"raw_bits_per_byte": 2.31}},
        paper={size: {"perplexity": value} for size, value in wiki.items()},
    )
    _score(
        folder,
        "cloze",
        {"accuracy": (0.337, 0.286, 0.392), "noun_accuracy": (0.31, 0.26, 0.37)},
        300,
        baselines={"uniform": {"accuracy": 0.1}, "seen last": {"accuracy": 0.21}},
    )
    _score(
        folder,
        "heldout",
        {
            "train_perplexity": (30.2, 28.9, 31.4),
            "train_bits_per_byte": (1.19, 1.16, 1.22),
            "valid_perplexity": (33.9, 31.0, 37.1),
            "valid_bits_per_byte": (1.22, 1.19, 1.25),
            "test_perplexity": (34.4, 31.8, 37.5),
            "test_bits_per_byte": (1.23, 1.19, 1.27),
            "test_minus_train_nats_per_token": (0.13,),
        },
        212,
        baselines={"xz": {"test_bits_per_byte": 2.31}},
    )


def _score(folder: Path, task: str, found: dict[str, tuple], n: int, **more: Any) -> None:
    result = {
        "task": task,
        "metrics": {name: value[0] for name, value in found.items()},
        "intervals": {
            name: {"low": value[1], "high": value[2]}
            for name, value in found.items()
            if len(value) == 3
        },
        "n": n,
        "protocol": {"window": 256, "stride": 256},
        "data": {"file": f"{task}.jsonl", "sha256": "0a" * 32},
        "model": {"name": "step-00000600", "parameters": 2_615_808, "weights_sha256": "1b" * 32},
        "baselines": more.get("baselines", {}),
        "paper": more.get("paper", {}),
        "seconds": 12.3,
    }
    write_json(folder / f"{task}.json", result)


def _samples(folder: Path) -> None:
    chance = random.Random(3)
    lines = [
        {"prompt": prompt, "text": prose(chance, 9), "seed": seed, "tokens": 160}
        for prompt in ("", "The state of the Union", "Our relations with")
        for seed in (0, 1)
    ]
    lines[-1]["text"] += f" {MARKUP}"
    with stage(
        folder, kind="samples", config={"top_k": 40}, inputs={"training": "2c" * 32}
    ) as made:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "samples.jsonl").write_text(text, encoding="utf-8")
        made.commit(counts={"samples": len(lines)})


def _describe(run: Path, demo: bool) -> None:
    seconds = {"links": 0.6, "pages": 21.4, "corpus": 38.0, "tokenizer": 3.1, "tokens": 2.2}
    seconds |= {"training": 251.7, "scores": 33.9, "samples": 4.4}
    recipe = {
        "name": "demo" if demo else "laptop",
        "size": "micro",
        "data": "",
        "link_files": ["a"],
    }
    recipe |= {"demo": {"seed": 0} if demo else None, "links": {"min_score": 3}}
    recipe |= {"training": {"steps": STEPS, "lr": 2e-3}, "prompts": ["", "The state of the Union"]}
    machine = {"processor": "A processor with two cores", "cores": 2, "memory_gb": 7.8}
    machine |= {"system": "Linux 6.1", "python": "3.11.7", "versions": {"torch": "2.13.0"}}
    state = {
        "name": run.name,
        "version": "0.1.0",
        "created": "2026-11-23T19:00:00+00:00",
        "command": "gptwo reproduce laptop texts --out runs/made",
        "commit": "0123456789ab",
        "machine": machine,
        "budget": None,
        "recipe": recipe,
        "choice": None,
        "stages": {
            name: {"state": "done", "seconds": value, "key": "3d" * 32, "fingerprint": "4e" * 32}
            for name, value in seconds.items()
        },
    }
    state["stages"]["report"] = {"state": "running", "key": "5f" * 32}
    write_json(run / "run.json", state)
