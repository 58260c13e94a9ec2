"""Bytes -> text, when nobody can be trusted to say which encoding it is."""

import codecs

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(payload: bytes, charset: str = "") -> str:
    """Text of a page or file; what no encoding explains becomes U+FFFD.

    In this order: a byte-order mark; UTF-8 if every byte fits, since other encodings hardly ever
    look like it; what the server said; what the page says or its bytes suggest.
    """
    for mark, name in _MARKS:
        if payload.startswith(mark):
            return payload.decode(name, "replace")
    if b"\x1b" not in payload and b"\0" not in payload:  # else ISO-2022, UTF-16
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            pass
    if charset:
        try:
            return payload.decode(map_encoding_to_html5(charset) or charset)
        except (LookupError, ValueError):
            pass
    guess = detect_encoding(payload, from_html_meta=True) or "utf-8"
    return bytes_to_str(payload, guess, errors="replace")
