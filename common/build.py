"""Compile the kernels when the project is installed.

KERNELS=compiled  C, bounds checks on (the default)
KERNELS=pure      plain Python; compiled leftovers are removed

The build imports this module with nothing but setuptools and Cython there.
"""

import os
from pathlib import Path

from Cython.Compiler import Options
from setuptools import Extension
from setuptools.command.build_ext import build_ext

# Bounds checks stay on: bytes from strangers can never reach wild memory.
DIRECTIVES = {"wraparound": False, "cdivision": True, "initializedcheck": False, "show_performance_hints": False}


class BuildKernels(build_ext):
    """The stock build_ext, told by $KERNELS how to compile, or not to."""

    def finalize_options(self) -> None:
        super().finalize_options()
        Options.warning_errors = True
        self.cython_directives = DIRECTIVES
        self.cython_c_in_temp = True
        self.force = True  # build/ may hold another mode's output
        self.parallel = os.cpu_count() or 1

    def build_extensions(self) -> None:
        mode = os.environ.get("KERNELS", "compiled")
        if mode not in ("compiled", "pure"):
            raise SystemExit(f"KERNELS is {mode!r}, expected compiled or pure")
        if mode == "pure":
            for kernel in self.extensions:
                self.remove_built(kernel)
            self.extensions = []
        # An image of the tracker has no load tests.
        self.extensions = [kernel for kernel in self.extensions if Path(kernel.sources[0]).exists()]
        super().build_extensions()

    def remove_built(self, kernel: Extension) -> None:
        """Delete what an earlier build left, or Python would import it first."""
        source = Path(*kernel.name.split(".")).with_suffix(".py")
        for built in source.parent.glob(f"{source.stem}.*.so"):
            built.unlink()
        Path(self.get_ext_fullpath(kernel.name)).unlink(missing_ok=True)
