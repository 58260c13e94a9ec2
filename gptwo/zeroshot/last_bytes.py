"""Bits per byte of the end of a large file: what enwik8 and text8 have in common.

Both are the first 10^8 bytes of a Wikipedia dump, cut by custom into 90, 5 and 5 million: the last
5 million are the test (paper section 3.1). They are read as bytes, so nothing is normalised and a
cut through a character does no harm.
"""

from typing import Any

from gptwo.zeroshot.baselines import compressed_bits_per_byte
from gptwo.zeroshot.running_text import measures, window_record
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import Bench, Example, Record, Summary, Task, scored

TEST_BYTES = 5_000_000


def last_bytes(file: DataFile, metric: str) -> Task:
    """The task of scoring the last 5,000,000 bytes of `file`; `metric` names bits per unit.

    A byte is a character in text8, which has 27 of them.
    """

    def protocol(bench: Bench) -> dict[str, Any]:
        return {
            "version": 1,
            "scored": f"the last {TEST_BYTES:,} bytes as one stream, as they are",
            "unit": "bytes of the file",
            "limit": bench.limit_protocol("kilobytes"),
            **bench.windows_protocol(),
        }

    def data(bench: Bench) -> dict[str, Any]:
        return {**file.describe(), "units": len(_bytes(file, bench))}

    def examples(bench: Bench) -> list[Example]:
        return [Example(requests=[window]) for window in bench.windows(_bytes(file, bench))]

    def summary(records: list[Record], bench: Bench) -> Summary:
        return measures(records, {metric: len(_bytes(file, bench))}, bench)

    def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
        return {"xz": {metric: compressed_bits_per_byte(_bytes(file, bench))}}

    return Task(
        protocol=protocol,
        data=data,
        examples=examples,
        solve=scored(window_record),
        summary=summary,
        baselines=baselines,
    )


def _bytes(file: DataFile, bench: Bench) -> bytes:
    test = bench.sources.read(file)[-TEST_BYTES:]
    return test[: 1000 * bench.config.limit] if bench.config.limit else test
