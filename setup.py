"""Builds the optional C kernels. Without a compiler the package works on its plain Python twins."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "gptwo.native._merges",
            sources=["gptwo/native/merges.c"],
            extra_compile_args=["-O3", "-std=c11"],
            optional=True,
        )
    ]
)
