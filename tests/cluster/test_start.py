"""`shoal up` as a whole: a tracker that answers, survives its worker and stops when it is told to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ports import free_port

from cluster import client, start
from cluster.client import Announce
from common import config, config_source, keys
from common.config import Config
from gateway import listening

HASH = bytes(20)


@pytest.fixture
def tracker(tmp_path):
    """A running `shoal up`, and where it listens."""
    port = free_port()
    file = tmp_path / "cluster.yaml"
    listen = f"gateways: [{{name: g, listen: ['127.0.0.1:{port}', '[::1]:{port}']}}]"
    file.write_text(f"data: {tmp_path}/data\nadmin: null\n{listen}\n")
    process = subprocess.Popen([sys.executable, "-P", "-m", "cluster", "up", "--config", str(file)])
    yield process, port
    process.kill()
    process.wait()


def ask(host, port, peer):
    """Announce until the tracker is there: it takes a moment to open its sockets."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return client.announce(client.Tracker(host, port, b""), Announce(HASH, port=peer, left=1))
        except client.TrackerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def workers(pid):
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_and_stops_cleanly(tracker, number):
    process, port = tracker
    for host in ("127.0.0.1", "::1"):
        assert ask(host, port, 7001).peers == []
        assert ask(host, port, 7002).peers == [(host, 7001)]
    process.send_signal(number)
    assert process.wait(5) == 0


def test_another_worker_takes_over(tracker):
    process, port = tracker
    ask("127.0.0.1", port, 7001)
    (before,) = workers(process.pid)
    os.kill(before, signal.SIGKILL)
    ask("127.0.0.1", port, 7001)
    (after,) = workers(process.pid)
    assert after != before


def test_the_supervisor_stays_small(tracker):
    process, port = tracker
    ask("127.0.0.1", port, 7001)
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) < 16 << 10


def test_the_config_is_in_a_file_that_can_be_read_again(monkeypatch):
    fds = [start.config_file(Config())]
    monkeypatch.delattr(os, "memfd_create")
    fds.append(start.config_file(Config()))
    for fd in fds * 2:
        assert config.read(config_source.read(fd).config) == Config()
    for fd in fds:
        os.close(fd)


def test_the_default_fits_the_machine(monkeypatch):
    monkeypatch.setattr(listening, "has_ipv6", lambda: False)
    assert start.default().gateways[0].listen == ("0.0.0.0:6969",)
    monkeypatch.setattr(listening, "has_ipv6", lambda: True)
    assert start.default().gateways[0].listen == ("0.0.0.0:6969", "[::]:6969")


def refused(tmp_path, text, *more):
    """The one line with which `shoal up` refuses a configuration."""
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}/data\nadmin: null\n{text}")
    command = [sys.executable, "-P", "-m", "cluster", "up", "--config", str(file), *more]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    return line


THREE_NODES = f"""
nodes: [{{name: one, key: {"a" * 40}}}, {{name: two, key: {"b" * 40}}}, {{name: idle, key: {"c" * 40}}}]
gateways: [{{name: g, node: one, listen: ["127.0.0.1:0"]}}]
shards: [{{name: s, node: two, link: "tcp://127.0.0.1:7001"}}]
"""


def test_of_several_nodes_one_must_be_named(tmp_path):
    assert "cluster.yaml: --node: expected one of one, two, idle, found none" in refused(tmp_path, THREE_NODES)


def test_an_unknown_node_is_refused(tmp_path):
    line = refused(tmp_path, THREE_NODES, "--node", "three")
    assert "cluster.yaml: --node: expected one of one, two, idle, found 'three'" in line
    line = refused(tmp_path, "", "--node", "one")
    assert "--node: expected none, as the configuration has no nodes, found 'one'" in line


def test_a_node_with_nothing_to_run_is_refused(tmp_path):
    line = refused(tmp_path, THREE_NODES, "--node", "idle")
    assert "cluster.yaml: expected a gateway or a shard of node idle, found none" in line


def test_nodes_that_share_keys_make_none(tmp_path):
    line = refused(tmp_path, THREE_NODES, "--node", "one")
    assert line.startswith(f"shoal: {tmp_path}/keys/cluster.key: there is no such file: copy it from another node")
    assert not (tmp_path / "keys").exists()


def test_only_a_node_with_a_gateway_needs_the_key_of_connection_ids(tmp_path):
    keys.make(tmp_path / "keys")
    (tmp_path / "keys" / keys.CONNECTION_ID).unlink()
    assert "keys/connection-id.key: there is no such file" in refused(tmp_path, THREE_NODES, "--node", "one")
    assert "keys/two.key: there is no such file" in refused(tmp_path, THREE_NODES, "--node", "two")


def test_a_wrong_key_of_the_node_is_told_before_anything_starts(tmp_path):
    keys.make(tmp_path / "keys")
    public = keys.make_node_key(tmp_path / "keys", "two").public
    line = refused(tmp_path, THREE_NODES, "--node", "two")
    assert line.endswith(f"keys/two.key: the configuration has another public key for two than this: {public}")


def test_each_node_runs_what_the_file_assigns_to_it():
    wanted = config.read(yaml.safe_load(THREE_NODES))
    (gateway,) = start.open_all(wanted, start.choose_node(wanted, "one"))
    for fd in gateway.pop("fds"):
        os.close(fd)
    assert gateway == {"name": "g", "kind": "gateway", "arguments": ["-m", "gateway", "--name", "g"]}
    (shard,) = start.open_all(wanted, "two")
    assert shard == {
        "name": "s",
        "kind": "shard",
        "arguments": ["-m", "shard", "--name", "s"],
        "place": {"link": "tcp://127.0.0.1:7001", "bind": "tcp://127.0.0.1:7001"},
        "fds": [],
    }


def test_the_only_node_need_not_be_named(tmp_path):
    one = config.read({"nodes": [{"name": "here"}]})
    assert start.choose_node(one, None) == start.choose_node(one, "here") == "here"
    assert start.choose_node(Config(), None) == ""


def test_the_embedded_tracker_is_one_worker(tmp_path):
    wanted = config.read({"gateways": [{"name": "g", "listen": ["127.0.0.1:0"]}]})
    (tracker,) = start.open_all(wanted, "")
    assert (tracker["name"], tracker["arguments"], len(tracker["fds"])) == ("tracker", ["-m", "cluster.embedded"], 2)
    for fd in tracker["fds"]:
        os.close(fd)


def test_a_second_start_of_a_node_does_not_take_over_the_first(tmp_path):
    port = free_port()
    file = tmp_path / "cluster.yaml"
    gateways = f"gateways: [{{name: g, listen: ['127.0.0.1:{port}']}}]"
    file.write_text(f"data: {tmp_path}/data\nadmin: null\n{gateways}\nshards: [{{name: s1}}, {{name: s2}}]\n")
    command = [sys.executable, "-P", "-m", "cluster", "up", "--config", str(file)]
    first = subprocess.Popen(command)
    try:
        ask("127.0.0.1", port, 7001)
        # Gateways could share the port with those of another start.
        file.write_text(file.read_text().replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"))
        second = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert "data: expected a directory where this node does not run already" in second.stderr
        assert len(second.stderr.splitlines()) == 1
        assert ask("127.0.0.1", port, 7002).leechers == 2
    finally:
        first.kill()  # not in order: the lock goes with the process
        first.wait()
    third = subprocess.Popen(command)
    try:
        assert ask("127.0.0.1", int(file.read_text().split("127.0.0.1:")[1].split("'")[0]), 7003).leechers <= 1
    finally:
        third.send_signal(signal.SIGTERM)
        assert third.wait(20) == 0
