"""Translation induced by example pairs: what both directions of WMT14 have in common.

The context is pairs of sentences, "english sentence = french sentence", one a line, and then the
sentence to translate with its "="; the answer is the first line of greedy decoding (paper section
3.7; the format was told by its authors, openai/gpt-2#20). Which pairs and how many is unpublished.
"""

from typing import Any

from gptwo.records import Interval
from gptwo.text.config import SampleConfig
from gptwo.zeroshot.extras import extra
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import (
    Bench,
    Continue,
    Example,
    Record,
    Solving,
    Summary,
    Task,
    cut_contexts,
)

ENGLISH = DataFile(
    path="eval/wmt14_fr_en/newstest2014.en",
    size=375_106,
    sha256="9a12cb6e8efb3509ebede627e4a9c83ee64935509d561ff70f4b7bd5f93f6096",
)
FRENCH = DataFile(
    path="eval/wmt14_fr_en/newstest2014.fr",
    size=445_720,
    sha256="2bd07dc204f965bf88e90adb6223a8cb850f9bf9840df6af1f4945195936656e",
)
PAIRS = (  # ours, of newspaper kind; none is in the set
    (
        "The mayor opened the new bridge on Monday morning.",
        "Le maire a inauguré le nouveau pont lundi matin.",
    ),
    (
        "Prices rose by two percent last year, according to the central bank.",
        "Les prix ont augmenté de deux pour cent l'année dernière, selon la banque centrale.",
    ),
    (
        "The players were tired, but they did not give up.",
        "Les joueurs étaient fatigués, mais ils n'ont pas abandonné.",
    ),
    (
        "Why does the government want to change the law?",
        "Pourquoi le gouvernement veut-il changer la loi ?",
    ),
    (
        "A study published in the journal shows that children sleep less than before.",
        "Une étude publiée dans la revue montre que les enfants dorment moins qu'avant.",
    ),
)
TOKENS = 160  # of a translation, at most


def translation(source: DataFile, target: DataFile, *, into_english: bool) -> Task:
    """The task of translating the lines of `source`; `target` holds the references."""
    turn = -1 if into_english else 1
    pairs = "".join("{} = {}\n".format(*pair[::turn]) for pair in PAIRS)

    def protocol(bench: Bench) -> dict[str, Any]:
        return {
            "version": 1,
            "prompt": f"{len(PAIRS)} pairs of our own, 'sentence = translation', one a line, then "
            "'sentence ='",
            "pairs": [list(pair[::turn]) for pair in PAIRS],
            "translation": f"greedy, to the end of the line, {TOKENS} tokens at most",
            "bleu": f"sacreBLEU of the corpus, {_signature()}, in points; interval by "
            "its bootstrap",
            "limit": bench.limit_protocol("sentences"),
        }

    def data(bench: Bench) -> dict[str, Any]:
        for file in (source, target):
            bench.sources.read(file)
        return {"source": source.describe(), "references": target.describe()}

    def examples(bench: Bench) -> list[Example]:
        sides = [
            bench.sources.read(file).decode("utf-8").split("\n")[:-1] for file in (source, target)
        ]
        rows = list(zip(*sides, strict=True))[: bench.config.limit or None]
        return [Example(facts={"source": text, "reference": reference}) for text, reference in rows]

    def solve(example: Example, bench: Bench) -> Solving:
        ids = bench.tokenizer.encode(f"{pairs}{example.facts['source']} =")
        tokens = min(TOKENS, max(bench.n_ctx // 2, 1))
        config = SampleConfig(temperature=0.0, max_tokens=tokens, stop=("\n",))
        room = max(bench.n_ctx - tokens, 1)  # too long: pairs are cut first
        (said,) = yield [Continue(prompt=ids[-room:], config=config)]
        return {
            **example.facts,
            "translation": said.text.strip(),
            "cut": max(len(ids) - room, 0),
        }

    return Task(
        protocol=protocol,
        data=data,
        examples=examples,
        solve=solve,
        summary=_summary,
        baselines=_baselines,
    )


def _summary(records: list[Record], bench: Bench) -> Summary:
    said = [record["translation"] for record in records]
    references = [record["reference"] for record in records]
    found = _bleu().corpus_score(said, [references], n_bootstrap=bench.config.resamples)
    metrics = {
        "bleu": found.score,
        "brevity_penalty": found.bp,
        **cut_contexts(records),
    }
    return metrics, {"bleu": Interval(low=found._mean - found._ci, high=found._mean + found._ci)}


def _baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """The sentence left as it is: names and numbers are right in any language."""
    copied = [example.facts["source"] for example in examples]
    references = [example.facts["reference"] for example in examples]
    return {"copy": {"bleu": _bleu().corpus_score(copied, [references]).score}}


def _bleu() -> Any:
    return extra("sacrebleu", "sacrebleu").BLEU()


def _signature() -> str:
    """How sacreBLEU names its settings; it knows them once it has scored something."""
    bleu = _bleu()
    bleu.corpus_score(["a"], [["a"]])
    return str(bleu.get_signature())
