"""Write gptwo/native/html_entities.h: the named characters of HTML.

usage: python scripts/html_entities.py > gptwo/native/html_entities.h

The names are those of Python's `html.entities.html5`, which the plain parser reads: most end in a
semicolon, the old ones are there without it too. The characters are written as UTF-8.
"""

from html.entities import html5


def header() -> str:
    """The text of the file."""
    lines = [""]
    for name, characters in sorted(html5.items()):
        octal = "".join(f"\\{byte:03o}" for byte in characters.encode())
        entry = f'{{"{name}","{octal}"}},'
        if len(lines[-1]) + len(entry) > 96:
            lines.append("")
        lines[-1] += entry
    parts = [
        "/* The named characters of HTML, with UTF-8 in octal.",
        "   Made by scripts/html_entities.py; a test holds them to Python's own table. */",
        f"enum {{ ENTITIES = {len(html5)}, LONGEST_ENTITY = {max(map(len, html5))} }};",
        "static const char *const ENTITY[ENTITIES][2] = {",
        *(f"    {line}" for line in lines),
        "};",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(header())
