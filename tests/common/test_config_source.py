"""What a supervisor hands over and may write again: whole, or not taken."""

import os
import subprocess
import sys
import threading

import pytest

from common import config_source
from common.config_source import Given, TornError

# Writes two texts of different lengths in turn until it is killed.
WRITER = """
import sys
from common import config_source
print("on", flush=True)
while True:
    for letter, many in (("a", 50_000), ("b", 70_000)):
        config_source.write(int(sys.argv[1]), letter * many, letter)
"""


@pytest.fixture
def fd():
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(config_source, "TRIES", 3)


@pytest.mark.parametrize("refused", ["", "cluster.yaml: expected 'é'\n"])
def test_what_is_written_is_read(fd, refused):
    document = {"version": 3, "shards": [{"name": "é", "weight": 0.5}], "admin": None}
    config_source.write(fd, document, refused)
    assert config_source.read(fd) == Given(document, refused)


def test_it_is_read_again_whatever_the_offset(fd):
    config_source.write(fd, [1])
    os.lseek(fd, 3, os.SEEK_SET)
    assert [config_source.read(fd) for _ in range(2)] == [Given([1], "")] * 2
    assert os.lseek(fd, 0, os.SEEK_CUR) == 3


def test_a_shorter_one_leaves_nothing_of_a_longer(fd):
    config_source.write(fd, "x" * 10_000)
    config_source.write(fd, "y")
    assert config_source.read(fd) == Given("y", "")
    assert os.fstat(fd).st_size < 100


def half(blob):
    return blob[: len(blob) // 2]


def flipped(blob):
    return blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:]


@pytest.mark.parametrize(
    "broken", [b"", b"\n", b"00000000 5\n", b"text without an end", b"0" * 100, b"00000000 -1\n{}"]
)
def test_what_was_never_whole_is_not_taken(fd, impatient, broken):
    os.write(fd, broken)
    with pytest.raises(TornError, match="not whole"):
        config_source.read(fd)


@pytest.mark.parametrize("spoil", [half, flipped])
def test_what_is_not_whole_is_not_taken(fd, impatient, spoil):
    config_source.write(fd, list(range(1000)))
    blob = os.pread(fd, 1 << 20, 0)
    os.ftruncate(fd, 0)
    os.pwrite(fd, spoil(blob), 0)
    with pytest.raises(TornError):
        config_source.read(fd)


def test_a_reader_waits_until_it_is_whole(fd, monkeypatch):
    config_source.write(fd, "old")
    blob = os.pread(fd, 1 << 20, 0)
    os.pwrite(fd, b"?", 0)
    waited = threading.Event()

    def mend(seconds):
        os.pwrite(fd, blob, 0)
        waited.set()

    monkeypatch.setattr(config_source.time, "sleep", mend)
    assert config_source.read(fd) == Given("old", "")
    assert waited.is_set()


def test_nobody_reads_a_mixture_while_another_process_writes(fd):
    command = [sys.executable, "-P", "-c", WRITER, str(fd)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[fd]) as writer:
        try:
            assert writer.stdout.readline() == b"on\n"
            config_source.read(fd)
            found = [config_source.read(fd) for _ in range(300)]
        finally:
            writer.kill()
    assert {(given.config[0], given.refused) for given in found} <= {("a", "a"), ("b", "b")}
    assert all(given.config == given.refused * len(given.config) for given in found)
    assert {len(given.config) for given in found} <= {50_000, 70_000}
