"""What fuzzing found, on the kernels compiled and uncompiled: nothing fails, and both do the same, byte for byte."""

from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from kernels import VARIANTS

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*/*"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus(path):
    target = TARGETS[path.parent.name]
    data = path.read_bytes()
    one, *others = [target(kernel, data, 0x55 * n) for n, kernel in enumerate(VARIANTS.values(), 1)]
    assert all(other == one for other in others)


def test_the_corpus_is_there():
    assert {path.parent.name for path in CORPUS} == set(TARGETS)
