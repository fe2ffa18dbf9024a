"""A running `shoal up` takes up an edited file: what it assigns anew is started, nothing else is started again."""

import contextlib
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from ports import free_port, free_ports
from processes import shoal_json, shoal_refuses, until
from trackers import Client

from cluster import reload, start, taken_up
from cluster.__main__ import main
from common import config, config_source, keys
from common.config import ConfigError
from common.sockets import is_shared

ROOT = os.geteuid() == 0
ME = pwd.getpwuid(os.geteuid()).pw_name
OTHER = pwd.getpwnam("nobody" if ME != "nobody" else "daemon")
HASH = bytes(20)
HALF = "version: 9\nshards: [{name:"


def shard(name, **more):
    return {"name": name, "memory": "16 MiB", **more}


class Up:
    """A `shoal up` and its file, which is made unless there is one. `edit` writes it as editors do: by a rename."""

    def __init__(self, directory, node=None, **settings):
        self.file = directory / "cluster.yaml"
        self.log_file = directory / f"{node or 'node'}.log"
        self.document = {
            "version": 1,
            "data": str(directory / "data"),
            "admin": f"127.0.0.1:{free_ports(8)[0]}",
            "gateways": [{"name": "g1", "listen": [f"127.0.0.1:{free_port()}"]}],
            "shards": [shard("s1"), shard("s2")],
            "log": {"format": "json", "figures": 0},
            **settings,
        }
        if not self.file.exists():
            self.write()
        command = [sys.executable, "-P", "-m", "cluster", "up", "--config", str(self.file)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen([*command, *(["--node", node] if node else [])], stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # and its workers notice
        self.process.wait()

    def write(self, **settings):
        self.document |= settings
        other = self.file.with_suffix(".new")
        other.write_text(yaml.safe_dump(self.document))
        other.replace(self.file)

    def edit(self, **settings):
        """Write the file, and have it read at once."""
        self.write(**settings)
        self.hang_up()

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def lines(self):
        """What the supervisor has logged."""
        lines = [line for line in self.log_file.read_text().splitlines() if '"process": "supervisor"' in line]
        return [json.loads(line)["message"] for line in lines]

    def says(self, text, times=1):
        """Wait until the supervisor has said that so often."""
        until(lambda: sum(text in line for line in self.lines()) >= times)

    def pids(self):
        """The pids of workers by name."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if "--parent-pipe" in words:
                    found[words[words.index("--name") + 1] if "--name" in words else "tracker"] = int(pid)
        return found

    def is_well(self):
        """Whether all that the file assigns is there and well."""
        return CliRunner().invoke(main, ["health", "--config", str(self.file)]).exit_code == 0

    def wait_for(self, *names):
        """The pids of workers, once these and no others are there and all are well."""
        until(lambda: self.pids().keys() == set(names))
        until(self.is_well)
        return self.pids()

    def refused(self):
        """What its shards say was refused."""
        _, status = shoal_json("status", "--config", self.file)
        return [one["config_refused"] for one in status["shards"] if one["state"] == "up"]

    def client(self, at=0):
        host, _, port = self.document["gateways"][at]["listen"][0].rpartition(":")
        return Client((host, int(port)))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def test_a_cluster_grows_and_shrinks_while_it_runs(tmp_path):
    with Up(tmp_path, shards=[shard("s1"), shard("s2"), shard("idle", weight=0)]) as up:
        first = up.wait_for("g1", "s1", "s2", "idle")
        with up.client() as client:
            assert client.announce(HASH, port=7001, left=0).seeders == 1
        gateways = [{**up.document["gateways"][0], "name": "g0"}, *up.document["gateways"]]
        shards = [shard(name) for name in ("s1", "s2", "s3")]
        # Nobody tells it. Admin addresses move, as the new gateway has the first.
        up.write(version=2, gateways=gateways, shards=shards)
        until(lambda: {"g0", "s3"} <= up.pids().keys())
        second = up.pids()
        assert {name: second[name] for name in first} == first
        up.says("idle has left: exit status 0")
        until(up.is_well)
        up.edit(version=3, gateways=gateways[:1])
        up.says("g1 has left: exit status 0")
        with up.client() as client:  # the other gateway is at the same port
            assert client.announce(HASH, port=7001, left=0).seeders == 1
        last = up.wait_for("g0", "s1", "s2", "s3")
        assert last == {name: second[name] for name in last}
        kept = tmp_path / "data/taken-up-node.json"
        assert config.decode(kept.read_bytes()).version == 3
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert up.stop() == 0
        assert not any(os.path.exists(f"/proc/{pid}") for pid in second.values())
        assert sum("started, pid" in line for line in up.lines()) == 6


def test_what_is_refused_changes_nothing_and_is_told(tmp_path):
    with Up(tmp_path, version=3) as up, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        first = up.wait_for("g1", "s1", "s2")
        up.edit(version=2)
        up.says("version: expected at least 3, which was taken up before")
        up.edit(version=3, shards=[*up.document["shards"], shard("s3")])
        up.says("version: expected more than 3, as nodes, shards, weights or replicas are not those taken up before")
        up.file.write_text(HALF)
        up.says("expected valid YAML")  # nobody tells it
        up.file.unlink()
        up.hang_up()
        up.says(f"{up.file}: expected a file, found none")
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        up.edit(version=4, gateways=[*up.document["gateways"], {"name": "g2", "listen": [listen]}])
        up.says(f"gateways[1].listen[0]: cannot listen on {listen} (UDP): Address already in use")
        assert len({line for line in up.lines() if "the configuration is not taken up" in line}) == 5
        until(lambda: all("cannot listen" in text for text in up.refused()))
        up.edit(gateways=up.document["gateways"][:1], interval=60)
        up.says("takes effect at the next start of `shoal up`: interval")
        fourth = up.wait_for("g1", "s1", "s2", "s3")
        assert {name: fourth[name] for name in first} == first
        until(lambda: up.refused() == [""] * 3)
        assert up.stop() == 0
    up.write(version=3)
    line = shoal_refuses("up", "--config", up.file)
    assert "cluster.yaml: version: expected at least 4, which was taken up before" in line
    assert f"({tmp_path}/data/taken-up-node.json says so; remove it if this is another cluster), found 3" in line


def test_nodes_of_one_machine_take_up_one_file(tmp_path):
    keys.make(tmp_path / "keys")
    ports = free_ports(3)
    shards = [shard(f"s{at}", node=f"n{at}", link=f"tcp://127.0.0.1:{port}") for at, port in enumerate(ports)]
    settings = {
        "nodes": [{"name": "n0"}, {"name": "n1"}],
        "gateways": [{"name": "g1", "node": "n0", "listen": ["127.0.0.1:0"]}],
        "shards": shards[:2],
        "admin": None,
    }
    with Up(tmp_path, "n0", **settings) as one, Up(tmp_path, "n1", **settings) as two:
        for up in (one, two):
            until(lambda up=up: len(up.pids()) == (2 if up is one else 1))
        first, other = one.pids(), two.pids()
        third = {**shards[2], "node": "n1"}
        one.write(version=2, shards=[*shards[:2], third])
        for up in (one, two):
            up.hang_up()
            up.says("version 2 of the configuration is taken up")
        until(lambda: two.pids().keys() == {"s1", "s2"})
        assert one.pids() == first
        assert two.pids()["s1"] == other["s1"]
        names = sorted(path.name for path in (tmp_path / "data").glob("*.json"))
        assert names == ["taken-up-n0.json", "taken-up-n1.json"]
        assert (one.stop(), two.stop()) == (0, 0)


def test_the_embedded_tracker_says_what_waits(tmp_path):
    with Up(tmp_path, shards=[shard("s1")]) as up:
        pids = up.wait_for("tracker")
        up.edit(interval=60, shards=[shard("s1", memory="32 MiB")])
        up.says("takes effect at the next start of `shoal up`: interval, shards[0].memory")
        up.edit(version=2, shards=[shard("s1"), shard("s2")])
        up.says("shards: expected one gateway and one shard without a `link`, as before: stop the tracker")
        assert up.pids() == pids
        assert not list((tmp_path / "data").glob("*.json"))
        assert up.stop() == 0


def test_workers_of_another_user_take_it_up_too(place):
    if not ROOT:
        with Up(place, user=OTHER.pw_name) as up:
            assert up.process.wait(60) == 2
        return
    with Up(place, user=OTHER.pw_name) as up:
        first = up.wait_for("g1", "s1", "s2")
        check_that_it_only_reads(first["s1"])
        listen = f"127.80.0.1:{low_port()}"
        gateways = [*up.document["gateways"], {"name": "g2", "listen": [listen]}]
        up.edit(version=2, gateways=gateways, shards=[*up.document["shards"], shard("s3")])
        second = up.wait_for("g1", "g2", "s1", "s2", "s3")
        assert {os.stat(f"/proc/{pid}").st_uid for pid in second.values()} == {OTHER.pw_uid}
        kept = place / "data/taken-up-node.json"
        assert (kept.stat().st_uid, stat.S_IMODE(kept.stat().st_mode)) == (OTHER.pw_uid, 0o600)
        assert config.decode(kept.read_bytes()).version == 2


def check_that_it_only_reads(pid):
    """A worker must not be able to write where root's supervisor reads what it runs."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    fd = words[words.index("--config-fd") + 1]
    flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
    assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
    handed = os.stat(f"/proc/{pid}/fd/{fd}")
    assert (handed.st_uid, stat.S_IMODE(handed.st_mode)) == (0, 0o600)


def low_port():
    """A port that only root may take."""
    for port in range(80, 1024):
        with contextlib.suppress(OSError), socket.create_server(("127.80.0.1", port)):
            return port
    raise AssertionError("no port below 1024 is free")


# The reader on its own


class Rig:
    """What a reader of an edited file is asked by a supervisor that runs gateways and shards, and what it answers."""

    def __init__(self, directory, **settings):
        self.file = directory / "cluster.yaml"
        self.fd = start.unnamed_file()
        self.document = {
            "data": str(directory / "data"),
            "gateways": [{"name": "g1", "listen": [f"127.0.0.1:{free_port()}"]}],
            "shards": [shard("s1"), shard("s2")],
            **settings,
        }
        keys.make(directory / "data")
        wanted = config.read(self.document)
        config_source.write(self.fd, start.document(wanted))
        self.workers = [{"leaving": False, "place": {}, **each} for each in start.open_all(wanted, "")]
        self.opened = []

    def read(self, **settings):
        """The answer to an edit; the sockets are in `opened`."""
        self.file.write_text(yaml.safe_dump(self.document | settings))
        held = [{**each, "fds": [os.dup(fd) for fd in each["fds"]]} for each in self.workers]
        request = {"file": str(self.file), "node": "", "user": None, "config_fd": self.fd, "workers": held}
        reader = reload.Reader(request)
        told, opened = reader.read()
        self.opened += opened
        for _, _, sockets in reader.held:
            for sock in sockets:
                sock.close()
        return told

    def held(self, name):
        """The sockets of a worker."""
        (fds,) = [each["fds"] for each in self.workers if each["name"] == name]
        return [socket.socket(fileno=os.dup(fd)) for fd in fds]

    def shared(self, name):
        found = []
        for sock in self.held(name):
            with sock:
                found.append(is_shared(sock))
        return found

    def close(self):
        for sock in self.opened:
            sock.close()
        for fd in (self.fd, *(fd for each in self.workers for fd in each["fds"])):
            os.close(fd)


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def test_an_answer_says_what_there_is_to_run(rig):
    told = rig.read(version=2, shards=[shard("s2"), shard("s3")])
    assert told["refused"] == ""
    assert [(each["name"], each["kind"], each["sockets"]) for each in told["workers"]] == [
        ("g1", "gateway", 0),
        ("s2", "shard", 0),
        ("s3", "shard", 0),
    ]
    assert told["workers"][2]["arguments"] == ["-m", "shard", "--name", "s3"]
    assert config.read(told["config"]).version == 2
    assert json.loads(json.dumps(told)) == told


def test_a_gateway_more_at_a_port_shares_it_with_who_has_it(rig):
    g1 = rig.document["gateways"][0]
    told = rig.read(gateways=[g1, {**g1, "name": "g2"}])
    assert [each["sockets"] for each in told["workers"]] == [0, 2, 0, 0]
    assert rig.shared("g1") == [is_shared(sock) for sock in rig.opened] == [True, True]
    rig.workers[0]["leaving"] = True
    rig.workers.append({**rig.workers[0], "name": "g2", "leaving": False, "fds": [rig.opened[0].detach()]})
    rig.workers[-1]["fds"].append(rig.opened[1].detach())
    rig.opened.clear()
    rig.read(gateways=[{**g1, "name": "g2"}])
    assert rig.shared("g2") == [False, False]  # it has the port alone, once the other is gone


def test_another_name_at_a_port_takes_it_over(rig):
    g1 = rig.document["gateways"][0]
    told = rig.read(gateways=[{**g1, "name": "g2"}])
    assert [(each["name"], each["sockets"]) for each in told["workers"]][0] == ("g2", 2)
    assert [sock.getsockname() for sock in rig.opened] == [sock.getsockname() for sock in rig.opened[:1]] * 2
    assert not any(is_shared(sock) for sock in rig.opened)


def test_a_gateway_that_cannot_listen_leaves_all_as_it_was(rig):
    g1 = rig.document["gateways"][0]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = [g1["listen"][0].replace("127.0.0.1", "127.0.0.2"), f"127.0.0.1:{taken.getsockname()[1]}"]
        told = rig.read(gateways=[g1, {"name": "g2", "listen": listen}])
    assert told["refused"].startswith(f"gateways[1].listen[1]: cannot listen on {listen[1]} (TCP)")
    assert (told["workers"], rig.opened) == ([], [])
    assert rig.shared("g1") == [False, False]
    assert not (rig.file.parent / "data/taken-up-node.json").exists()


def test_a_gateway_keeps_its_sockets_whatever_the_file_says(rig, caplog):
    caplog.set_level("INFO")
    told = rig.read(gateways=[{"name": "g1", "listen": [f"127.0.0.1:{free_port()}"]}])
    assert (told["refused"], rig.opened) == ("", [])
    assert told["config"]["gateways"][0]["listen"] == rig.document["gateways"][0]["listen"]
    assert "takes effect at the next start of `shoal up`: gateways[0].listen" in caplog.text


def test_a_shard_that_leaves_may_stay_but_not_elsewhere(rig):
    rig.workers[2]["leaving"] = True
    place = rig.workers[2]["place"]
    moved = shard("s2", link=f"ipc://{rig.file.parent}/elsewhere")
    config_source.write(rig.fd, start.document(config.read(rig.document | {"shards": [shard("s1"), shard("s3")]})))
    told = rig.read(version=2, shards=[shard("s1"), moved])
    assert told["refused"] == (
        f"{rig.file}: shards[1].link: expected {place['link']!r}, as before, until the shard of that name has ended, "
        f"found {moved['link']!r}"
    )
    assert rig.read(version=2)["refused"] == ""


def test_a_key_file_that_is_missing_is_told(rig):
    path = rig.file.parent / "data" / keys.CONNECTION_ID
    path.unlink()
    assert rig.read(version=2)["refused"].startswith(f"{path}: there is no such file")


def test_who_runs_another_version_of_shoal_is_started_anew(rig):
    config_source.write(rig.fd, {"novelty": 1})
    told = rig.read()
    assert told["refused"].startswith(f"{rig.file}: expected a new start, as the tracker runs in another version")


# What was taken up last


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "data").mkdir()
    return config.read({"version": 3, "data": str(tmp_path / "data"), "shards": [{"name": "s1"}, {"name": "s2"}]})


def changed(cluster, **settings):
    return config.read(start.document(cluster) | settings)


def test_a_node_remembers_what_it_has_taken_up(cluster):
    assert taken_up.check(cluster, "", None) == ""
    taken_up.note(cluster, "", None)
    for allowed in (cluster, changed(cluster, version=4, replicas=1), changed(cluster, interval=60)):
        assert taken_up.check(allowed, "", None) == ""
    assert taken_up.check(changed(cluster, version=1), "other", None) == ""  # another node
    for refused, expected in (
        ({"version": 2}, "version: expected at least 3, .*"),
        ({"replicas": 1}, "version: expected more than 3, .*"),
        ({"version": 4, "slices": 64}, "slices: expected 1024, .*"),
    ):
        with pytest.raises(ConfigError, match=expected + r"taken-up-node.json says so; remove it if"):
            taken_up.check(changed(cluster, **refused), "", None)


def test_a_directory_may_be_moved_with_what_is_in_it(cluster, tmp_path):
    taken_up.note(cluster, "", None)
    cluster.data.rename(tmp_path / "moved")
    moved = changed(cluster, data=str(tmp_path / "moved"))
    assert taken_up.check(moved, "", None) == ""
    with pytest.raises(ConfigError):
        taken_up.check(changed(moved, version=2), "", None)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"novelty": 1}', b"[]"])
def test_what_this_version_cannot_read_refuses_nothing(cluster, content):
    path = taken_up.path_of(cluster, "")
    path.write_bytes(content)
    assert taken_up.check(cluster, "", None).startswith(f"{path} cannot be read, so nothing is known of")
    taken_up.note(cluster, "", None)
    assert taken_up.check(cluster, "", None) == ""


def test_who_cannot_remember_runs_all_the_same(cluster, caplog):
    taken_up.path_of(cluster, "").mkdir()
    taken_up.note(cluster, "", None)
    assert "cannot be written, so an older configuration will not be refused" in caplog.text
    assert [path.name for path in cluster.data.iterdir()] == ["taken-up-node.json"]


def test_it_is_written_only_if_it_is_another(cluster):
    taken_up.note(cluster, "", None)
    before = taken_up.path_of(cluster, "").stat().st_ino
    taken_up.note(cluster, "", None)
    assert taken_up.path_of(cluster, "").stat().st_ino == before
