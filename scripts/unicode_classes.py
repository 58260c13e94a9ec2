"""Write gptwo/native/unicode_classes.h: which code points GPT-2's cut takes for what.

usage: python scripts/unicode_classes.py > gptwo/native/unicode_classes.h

The classes are those of the `regex` package, by which the reference cuts. Two bits a code point:
0 other, 1 letter, 2 number, 3 white space. Blocks of 256 that are alike are kept once.
"""

import regex

BLOCK = 256
CLASSES = (r"\p{L}", r"\p{N}", r"\s")  # 1, 2, 3


def classes() -> bytes:
    """Class of every code point; surrogates are none of the three."""
    points = "".join(map(chr, range(0x110000)))
    found = bytearray(len(points))
    for kind, pattern in enumerate(CLASSES, 1):
        for run in regex.finditer(f"{pattern}+", points):
            found[run.start() : run.end()] = bytes([kind]) * len(run.group())
    return bytes(found)


def packed(block: bytes) -> bytes:
    """Four code points to the byte, the first in the lowest bits."""
    return bytes(
        sum(kind << 2 * k for k, kind in enumerate(block[i : i + 4])) for i in range(0, BLOCK, 4)
    )


def rows(values: list[int] | bytes) -> str:
    lines = [values[i : i + 24] for i in range(0, len(values), 24)]
    return "\n".join("    " + ",".join(map(str, line)) + "," for line in lines)


def header() -> str:
    """The text of the file."""
    found = classes()
    last = max(point for point, kind in enumerate(found) if kind) // BLOCK + 1
    blocks: dict[bytes, int] = {}
    index = [
        blocks.setdefault(packed(found[i * BLOCK : (i + 1) * BLOCK]), len(blocks))
        for i in range(last)
    ]
    parts = [
        f"/* Unicode classes after the regex package {regex.__version__}.",
        "   Made by scripts/unicode_classes.py; a test holds them to the package installed. */",
        "#include <stdint.h>\n",
        f"#define CLASSIFIED {last * BLOCK} /* code points from here on are of no class */",
        f"static const uint8_t CLASS_BLOCK[{last}] = {{\n{rows(index)}\n}};\n",
        "/* Four code points to the byte: 0 other, 1 letter, 2 number, 3 white space. */",
        f"static const uint8_t CLASS_BITS[{len(blocks)}][{BLOCK // 4}] = {{",
        *(f"  {{\n{rows(block)}\n  }}," for block in blocks),
        "};",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(header())
