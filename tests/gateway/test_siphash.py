"""SipHash-2-4 against the published vectors, compiled and uncompiled."""

import json
from pathlib import Path

import pytest

VECTORS = json.loads(Path(__file__).parents[1].joinpath("vectors.json").read_text())


def test_vectors_of_all_lengths(kernel):
    siphash = kernel("gateway.siphash").siphash
    key = bytes(range(16))
    wanted = [vector["le_bytes"] for vector in VECTORS["siphash_2_4"]]
    assert len(wanted) == 33
    for length, text in enumerate(wanted):
        assert siphash(key, bytes(range(length))).to_bytes(8, "little").hex() == text


@pytest.mark.parametrize(("key", "message"), [(15, 0), (17, 0), (0, 0), (16, 40), (16, 100)])
def test_lengths_are_checked(kernel, key, message):
    with pytest.raises(ValueError, match="16 bytes and a message of at most 39"):
        kernel("gateway.siphash").siphash(bytes(key), bytes(message))
