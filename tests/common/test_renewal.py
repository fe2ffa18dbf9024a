"""How a running worker comes by another configuration: handed over, or from its own file."""

import asyncio
import itertools
import os

import pytest

from common import config, config_source, renewal
from common.config_errors import ConfigError
from common.renewal import Handed, OwnFile, Renewal

SHARDS = [{"name": "s1"}, {"name": "s2"}]
DOCUMENT = {"version": 3, "data": "/srv", "shards": SHARDS}


class Admin:
    def __init__(self):
        self.moved = []

    def move(self, address):
        self.moved.append(str(address))


class Worker:
    """A worker that notes what it is told. `fails`: with what it refuses."""

    def __init__(self, own=None):
        self.own = own
        self.config_refused = ""
        self.admin = Admin()
        self.configs = []
        self.hung_up = 0
        self.fails = None

    def hang_up(self):
        self.hung_up += 1

    def reconfigure(self, new):
        if self.fails:
            raise self.fails
        self.configs.append(new)


class Rig:
    """A worker and its renewal; `write` is the supervisor or the operator."""

    def __init__(self, source, write):
        self.source = source
        self.write = write
        self.first = source.first()
        self.worker = Worker(self.first.shards[0])
        self.renewal = Renewal(self.worker, source, self.first, "")

    def look(self, **settings):
        """After an edit, the versions that were taken up so far."""
        if settings:
            self.write(DOCUMENT | settings)
        for _ in range(2):
            self.renewal.look()
        return [new.version for new in self.worker.configs]


@pytest.fixture
def handed():
    fd = os.memfd_create("test")
    config_source.write(fd, DOCUMENT)

    def write(document, refused=""):
        config_source.write(fd, document, refused)

    yield Rig(Handed(fd), write)
    os.close(fd)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cluster.yaml"
    seconds = itertools.count(1)

    def write(document):
        path.write_bytes(config.encode(config.read(document)))
        at = next(seconds)
        os.utime(path, (at, at))  # a test writes faster than some systems' clocks of files tick

    write(DOCUMENT)
    return Rig(OwnFile(path), write)


@pytest.fixture(params=["handed", "file"])
def rig(request):
    return request.getfixturevalue(request.param)


def test_what_changes_is_taken_up_once(rig):
    assert rig.look() == []
    assert rig.look(version=4) == [4]
    assert rig.look() == [4]
    assert rig.look(version=5, shards=[*SHARDS, {"name": "s3"}]) == [4, 5]
    assert [str(shard.name) for shard in rig.worker.configs[-1].shards] == ["s1", "s2", "s3"]
    assert rig.worker.config_refused == ""


def test_the_same_again_changes_nothing(rig):
    assert rig.look(version=3) == []
    rig.renewal.look(asked=True)
    assert rig.worker.configs == []


def test_a_worker_that_cannot_says_why_and_keeps_the_old_until_there_is_another(rig):
    rig.worker.fails = ConfigError("shards", "this one", "others")
    for _ in range(2):
        assert rig.look(version=4) == []
        assert rig.worker.config_refused == "shards: expected this one, found others"
    rig.worker.fails = None
    assert rig.look() == []  # it has been told once
    assert rig.worker.config_refused != ""
    assert rig.look(version=5) == [5]
    assert rig.worker.config_refused == ""


def test_a_bug_in_a_worker_is_logged_and_told(rig, caplog):
    rig.worker.fails = ZeroDivisionError("a bug")
    assert rig.look(version=4) == []
    assert rig.worker.config_refused == "could not be taken up: ZeroDivisionError('a bug')"
    assert "ZeroDivisionError: a bug" in caplog.text
    rig.worker.fails = None
    assert rig.look(version=5) == [5]


def test_admin_addresses_follow_who_is_there(rig):
    rig.look(version=4, shards=[{"name": "s0"}, *SHARDS])
    rig.look(version=5)
    rig.look(version=6, shards=[SHARDS[1], {"name": "s3"}])
    assert rig.worker.admin.moved == ["127.0.0.1:6972", "127.0.0.1:6971", "None"]
    rig.worker.own = None
    rig.look(version=7, shards=[{"name": "s0"}, *SHARDS])
    assert len(rig.worker.admin.moved) == 3


# Handed over by the supervisor


def test_what_the_supervisor_refused_is_told_while_that_lasts(handed):
    handed.write(DOCUMENT, "cluster.yaml: expected better")
    assert handed.look() == []
    assert handed.worker.config_refused == "cluster.yaml: expected better"
    assert handed.look() == []
    handed.write(DOCUMENT)
    assert handed.look() == []
    assert handed.worker.config_refused == ""


def test_what_is_half_written_waits_for_the_next_look(handed, monkeypatch):
    monkeypatch.setattr(config_source, "TRIES", 1)
    config_source.write(handed.source.fd, DOCUMENT | {"version": 4})
    blob = os.pread(handed.source.fd, 1 << 20, 0)
    os.ftruncate(handed.source.fd, len(blob) // 2)
    assert handed.look() == []
    os.pwrite(handed.source.fd, blob, 0)
    assert handed.look() == [4]


def test_what_another_version_of_shoal_hands_over_is_told(handed, caplog):
    handed.write(DOCUMENT | {"novelty": 1})
    assert handed.look() == []
    assert "unknown key 'novelty'" in handed.worker.config_refused
    assert "unknown key 'novelty'" in caplog.text


# Its own file


def test_a_file_that_is_being_written_is_not_read(file):
    for version in (4, 5, 6):  # a file cut off at the end of a line may mean less than it will
        file.write(DOCUMENT | {"version": version})
        file.renewal.look()
        assert file.worker.configs == []
    file.renewal.look()
    assert [new.version for new in file.worker.configs] == [6]
    file.write(DOCUMENT | {"version": 7})
    file.renewal.look(asked=True)
    assert [new.version for new in file.worker.configs] == [6, 7]


def test_edits_that_may_not_follow_are_refused_in_one_line(file, caplog):
    for settings, line in (({"version": 2}, "version: expected at least 3"), ({"replicas": 1}, "version: expected mo")):
        assert file.look(**settings) == []
        assert file.worker.config_refused.startswith(f"{file.source.path}: {line}")
        assert caplog.messages == [f"the configuration is not taken up: {file.worker.config_refused}"]
        caplog.clear()
        assert file.look() == []
        assert caplog.messages == []
    assert file.look(version=3) == []
    assert file.worker.config_refused == ""


def test_half_a_file_is_refused_and_the_whole_taken_up(file):
    whole = config.encode(config.read(DOCUMENT | {"version": 4}))
    file.source.path.write_bytes(whole[: len(whole) // 2])
    assert file.look() == []
    assert "expected valid YAML" in file.worker.config_refused
    file.source.path.write_bytes(whole)
    assert file.look() == [4]
    assert file.worker.config_refused == ""


def test_a_file_may_go_and_come_back(file):
    away = file.source.path.with_suffix(".away")
    file.source.path.rename(away)
    assert file.look() == []
    assert file.worker.config_refused == ""
    file.renewal.look(asked=True)  # somebody wants to know
    assert file.worker.config_refused.endswith("expected a readable file, found no such file")
    away.rename(file.source.path)
    assert file.look() == []
    assert file.worker.config_refused == ""


def test_a_file_that_is_replaced_is_taken_up(file):
    other = file.source.path.with_suffix(".new")
    other.write_bytes(config.encode(config.read(DOCUMENT | {"version": 4})))
    other.rename(file.source.path)
    assert file.look() == [4]


def test_a_pipe_is_read_once(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = OwnFile(path)
    for asked in (False, True):
        assert source.offer(config.read(DOCUMENT), "", asked=asked) is None


def test_what_waits_for_the_next_start_is_logged(file, caplog):
    caplog.set_level("INFO")
    assert file.look(version=4, interval=60, user="root") == [4]
    assert file.worker.configs[0].interval == 1800
    assert f"{file.source.path}: takes effect at the next start: interval, user" in caplog.messages


# On a loop


def test_it_looks_once_it_has_begun_and_until_it_ends(rig, monkeypatch):
    monkeypatch.setattr(renewal, "EVERY", 0.001)

    async def run():
        rig.write(DOCUMENT | {"version": 4})
        rig.renewal.hang_up()  # while the worker starts
        assert (rig.worker.hung_up, rig.worker.configs) == (1, [])
        rig.renewal.begin()
        for version in (4, 5):
            rig.write(DOCUMENT | {"version": version})
            async with asyncio.timeout(20):
                while not rig.worker.configs or rig.worker.configs[-1].version != version:
                    await asyncio.sleep(0.001)
        rig.renewal.timer.cancel()  # nothing but the signal has it look now
        rig.write(DOCUMENT | {"version": 6})
        rig.renewal.hang_up()
        assert [new.version for new in rig.worker.configs] == [4, 5, 6]
        rig.renewal.end()
        rig.write(DOCUMENT | {"version": 7})
        rig.renewal.hang_up()
        assert (rig.worker.hung_up, len(rig.worker.configs)) == (3, 3)

    asyncio.run(run())
