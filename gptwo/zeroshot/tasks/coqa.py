"""CoQA, development set: questions about a text, in conversation (paper section 3.5).

The model reads the text, the earlier questions and answers, the question and "A:", and answers
greedily to the end of the line. Given history holds the reference answers to the earlier questions,
own history the model's.
"""

import json
from typing import Any

from gptwo.text.config import SampleConfig
from gptwo.text.samples import Completion
from gptwo.zeroshot.answers import f1, f1_of_many
from gptwo.zeroshot.intervals import bootstrap
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import Bench, Continue, Example, Record, Solving, Summary, Task, published

FILE = DataFile(
    path="eval/coqa/coqa_dev_sample_20.json",
    size=111_375,
    sha256="29d759add987aa9f9c0ccc2f0de84718d907e68544e0152be709dc2e5ba8143e",
)
GREEDY = SampleConfig(temperature=0.0, max_tokens=48, stop=("\n",))
HISTORIES = {"f1": "given", "own_history_f1": "own"}


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 1,
        "prompt": "text, newline, 'Q: ...\\nA: ...\\n' of every earlier turn, 'Q: ...\\nA:'",
        "answer": f"greedy, to the end of the line, {GREEDY.max_tokens} tokens at most",
        "f1": "words, case, punctuation and articles do not count; best of all references but one, "
        "averaged over the one left out, then over all turns; earlier answers are the references'",
        "own_history_f1": "the same with the model's own earlier answers",
        "too long": "the end of the text is cut, then the first turns",
        "limit": bench.limit_protocol("texts"),
    }


def examples(bench: Bench) -> list[Example]:
    stories = json.loads(bench.sources.read(FILE))["data"]
    return [conversation(story) for story in stories[: bench.config.limit or None]]


def conversation(story: dict[str, Any]) -> Example:
    """The facts of one entry of CoQA's file: references[turn] are all people's answers to it."""
    given = [story["answers"], *story["additional_answers"].values()]
    return Example(
        facts={
            "id": story["id"],
            "domain": story["source"],
            "text": story["story"],
            "questions": [turn["input_text"] for turn in story["questions"]],
            "references": [[a["input_text"] for a in turn] for turn in zip(*given, strict=True)],
        }
    )


def solve(example: Example, bench: Bench) -> Solving:
    questions, references = example.facts["questions"], example.facts["references"]
    given = [turn[0] for turn in references]
    asked = [_asked(bench, example, given[:turn]) for turn in range(len(questions))]
    answers = [_line(completion) for completion in (yield asked)]
    own: list[str] = []
    for _ in questions:
        (completion,) = yield [_asked(bench, example, own)]
        own.append(_line(completion))
    record = {"id": example.facts["id"], "domain": example.facts["domain"]}
    for name, said in (("f1", answers), ("own_history_f1", own)):
        record[name] = [f1_of_many(*pair) for pair in zip(said, references, strict=True)]
        record[name.replace("f1", "answers")] = said
    return record


def _line(completion: Completion) -> str:
    return completion.text.strip()


def _asked(bench: Bench, example: Example, history: list[str]) -> Continue:
    """The next question after `history`, cut to what the model can read."""
    encode, questions = bench.tokenizer.encode, example.facts["questions"]
    turns = "".join(f"Q: {q}\nA: {a}\n" for q, a in zip(questions, history, strict=False))
    tail = encode(f"\n{turns}Q: {questions[len(history)]}\nA:")
    room = max(bench.n_ctx - GREEDY.max_tokens, 1)
    text = encode(example.facts["text"])[: max(room - len(tail), 0)]
    return Continue(prompt=[*text, *tail[-room:]], config=GREEDY)


def summary(records: list[Record], bench: Bench) -> Summary:
    """Over all turns; intervals by drawing texts, whose turns belong together."""
    metrics, intervals = {}, {}
    for name in HISTORIES:
        sums, turns = [sum(r[name]) for r in records], [float(len(r[name])) for r in records]
        metrics[name] = sum(sums) / sum(turns)
        intervals[name] = bootstrap(
            sums, turns, float, resamples=bench.config.resamples, seed=bench.config.seed
        )
        for domain in sorted({record["domain"] for record in records}):
            scores = [s for r in records if r["domain"] == domain for s in r[name]]
            metrics[f"{domain}_{name}"] = sum(scores) / len(scores)
    metrics["turns"] = float(sum(len(record["f1"]) for record in records))
    return metrics, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """People, each against the others; and always yes."""
    people, yes = [], []
    for example in examples:
        for references in example.facts["references"]:
            people.append(max(f1(references[0], other) for other in references[1:]))
            yes.append(f1_of_many("yes", references))
    return {
        "people": {"f1": sum(people) / len(people)},
        "always yes": {"f1": sum(yes) / len(yes)},
    }


TASK = Task(
    protocol=protocol,
    data=published(FILE),
    examples=examples,
    solve=solve,
    summary=summary,
    baselines=baselines,
)
