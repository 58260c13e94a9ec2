"""Builds the optional C kernels. Without a compiler the package works on its plain Python twins."""

from setuptools import Extension, setup

HTML = [f"gptwo/native/{name}.h" for name in ("html", "html_entities", "html_tags")]
CUT = ["gptwo/native/cut.h", "gptwo/native/unicode_classes.h"]


def kernel(name: str, depends: list[str], *more: str) -> Extension:
    """`gptwo.native._NAME` from NAME.c; `more` are flags of the compiler."""
    return Extension(
        f"gptwo.native._{name}",
        sources=[f"gptwo/native/{name}.c"],
        depends=depends,
        extra_compile_args=["-O3", "-std=c11", *more],
        optional=True,
    )


setup(
    ext_modules=[
        kernel("count", CUT),
        kernel("merges", []),
        kernel("encode", CUT),
        kernel("links", []),
        kernel("html", HTML),
        kernel("extract", [*HTML, "gptwo/native/lines.h"]),
        kernel("language", []),
        kernel("prose", []),
        kernel("minhash", ["gptwo/native/words.h"]),
        kernel("ngrams", ["gptwo/native/words.h"]),
        kernel("records", ["gptwo/native/inflate.h"]),
        kernel("step", [], "-fno-trapping-math"),
    ]
)
