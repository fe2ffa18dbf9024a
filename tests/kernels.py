"""Kernels to put to the test: the C modules as they are installed, and their own sources uncompiled."""

import importlib
import importlib.util
import os
import sys
import tomllib
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def source_of(name: str) -> Path:
    """The kernel's source in the checkout."""
    return ROOT / (name.replace(".", "/") + ".py")


def is_stale(built: Path, name: str) -> bool:
    """Whether the checkout's source is no longer what `built` was compiled from."""
    source = source_of(name)
    if built.parent == source.parent:  # an editable install
        changed = [source, *source.parent.glob("*.pxd")]
        return any(path.stat().st_mtime > built.stat().st_mtime for path in changed)
    return source.read_bytes() != built.with_name(source.name).read_bytes()


def compiled(name: str) -> ModuleType:
    """The kernel as it is installed, which must be the C module of the present source."""
    module = importlib.import_module(name)
    built = Path(str(module.__file__))
    if built.suffix == ".py":
        pytest.fail(f"{name} was imported uncompiled: {built}")
    if is_stale(built, name):
        pytest.fail(f"{name} was edited after it was compiled: install again")
    return module


@cache
def pure_twins(package: str) -> dict[str, ModuleType]:
    """The kernels of a package, run as plain Python; one that imports another gets the other's twin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    kernels = [kernel["name"] for kernel in project["tool"]["setuptools"]["ext-modules"]]  # those imported come first
    names = [name for name in kernels if name.startswith(f"{package}.")]
    kept = {name: sys.modules.pop(name, None) for name in names}
    twins = {}
    try:
        for name in names:
            spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(source_of(name))))
            assert spec and spec.loader
            twins[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(twins[name])
    finally:
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module:
                sys.modules[name] = module
    return twins


def pure(name: str) -> ModuleType:
    """The kernel as plain Python."""
    return pure_twins(name.partition(".")[0])[name]


VARIANTS = {"pure": pure} if os.environ.get("KERNELS") == "pure" else {"compiled": compiled, "pure": pure}
