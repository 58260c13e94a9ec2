"""enwik8, test: bits per byte of Wikipedia's XML (paper table 3).

The file is that of the Hutter Prize, http://mattmahoney.net/dc/enwik8.zip, unpacked.
"""

from gptwo.zeroshot.last_bytes import last_bytes
from gptwo.zeroshot.sources import DataFile

FILE = DataFile(
    path="eval/enwik8/enwik8",
    size=100_000_000,
    sha256="2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
)
TASK = last_bytes(FILE, "bits_per_byte")
