"""text8, test: bits per character of Wikipedia as 26 letters and spaces (paper table 3).

The file is http://mattmahoney.net/dc/text8.zip, unpacked.
"""

from gptwo.zeroshot.last_bytes import last_bytes
from gptwo.zeroshot.sources import DataFile

FILE = DataFile(
    path="eval/text8/text8",
    size=100_000_000,
    sha256="6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
)
TASK = last_bytes(FILE, "bits_per_character")
