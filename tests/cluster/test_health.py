"""`shoal health`: what a container's health check asks, of real processes."""

import http.server
import json
import socket
import threading

import pytest
from ports import free_port
from processes import Cluster, shoal, shoal_refuses, until
from trackers import Process, get

from cluster import health
from common.values import Endpoint


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("health"), gateways=1, shards=2, transport="tcp", nodes=2) as running:
        yield running


def lines_of(cluster, node, *more):
    """What is printed; a line means that somebody is not well."""
    ended = shoal("health", "--config", cluster.file_of(node), "--node", node, *more)
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert ended.returncode == (1 if lines else 0)
    return lines


# Processes


def test_a_node_that_is_well_prints_nothing(cluster):
    assert lines_of(cluster, "vps1") == []
    assert lines_of(cluster, "vps2") == []


def test_who_is_gone_has_a_line(cluster):
    cluster.kill("shard1")
    assert lines_of(cluster, "vps1") == [f"shard1: no health at {cluster.admin['shard1']}: Connection refused"]
    assert lines_of(cluster, "vps2") == []  # each node answers for itself
    cluster.start("shard1")
    assert lines_of(cluster, "vps1") == []


def test_who_stands_still_has_a_line(cluster):
    cluster.pause("shard2")
    where = cluster.admin["shard2"]
    assert lines_of(cluster, "vps2", "--timeout", "0.5") == [f"shard2: no health at {where}: no answer in 0.5 s"]
    cluster.resume("shard2")
    assert lines_of(cluster, "vps2", "--timeout", "20") == []


def gateway_health(cluster):
    status, body = cluster.get("gateway1", "/health")
    return status, json.loads(body)


def test_a_gateway_that_hears_some_shards_is_well_and_names_the_silent_ones(cluster):
    """Or one shard's end would make every gateway of the cluster unhealthy."""
    until(lambda: gateway_health(cluster)[1]["silent_shards"] == [])
    cluster.kill("shard2")
    until(lambda: gateway_health(cluster)[1]["silent_shards"] == ["shard2"])
    status, said = gateway_health(cluster)
    assert (status, said["ok"], said["status"]) == (200, True, "ok")
    assert lines_of(cluster, "vps1") == []
    cluster.start("shard2")


def test_a_gateway_that_hears_no_shard_is_not_well(cluster):
    for shard in cluster.shards:
        cluster.kill(shard)
    until(lambda: gateway_health(cluster)[0] == 503)
    _, said = gateway_health(cluster)
    assert (said["ok"], said["status"], said["silent_shards"]) == (False, "degraded", ["shard1", "shard2"])
    assert said["failed_tasks"] == []
    host, port = cluster.gateway_address("gateway1")
    assert get(f"{host}:{port}", "/health") == (503, '{"ok": false}')  # load balancers are not told why
    assert lines_of(cluster, "vps1") == [
        "gateway1: hears no shard: shard1, shard2",
        f"shard1: no health at {cluster.admin['shard1']}: Connection refused",
    ]
    for shard in cluster.shards:
        cluster.start(shard)
    until(lambda: gateway_health(cluster)[0] == 200)
    assert lines_of(cluster, "vps1") == []


def test_who_is_somebody_else_has_a_line(cluster):
    """As with an old file after an edit that moved the admin ports."""
    base = cluster.admin["gateway1"]
    cluster.rewrite("vps2", admin=base)
    assert lines_of(cluster, "vps2") == [f"shard2: at {base} is gateway1"]
    cluster.rewrite("vps2", admin=cluster.admin["shard2"])
    assert lines_of(cluster, "vps2") == []


def test_the_embedded_tracker_is_asked_once(tmp_path):
    with Process(tmp_path) as tracker:
        ended = shoal("health", "--config", tracker.file)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    ended = shoal("health", "--config", tracker.file)
    assert (ended.returncode, ended.stdout) == (1, f"gateway1: no health at {tracker.admin}: Connection refused\n")


# An operator's mistakes


def test_a_node_must_be_named_if_there_are_several(cluster):
    line = shoal_refuses("health", "--config", cluster.file)
    assert "--node: expected one of vps1, vps2, found none" in line
    assert "found 'vps3'" in shoal_refuses("health", "--config", cluster.file, "--node", "vps3")


@pytest.mark.parametrize(("admin", "why"), [("null", "null"), ("127.0.0.1:0", "127.0.0.1:0, whose port nobody knows")])
def test_without_an_admin_address_nobody_can_be_asked(tmp_path, admin, why):
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}\nadmin: {admin}\n")
    line = shoal_refuses("health", "--config", file)
    assert f"admin: expected an address with port for every process, found {why}" in line


# Answers, from a server that gives what it is told to


@pytest.fixture
def server():
    """Answers any GET with `answer`: a status and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = running.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def lines_from(server, tmp_path, status, body):
    server.answer = status, body if isinstance(body, bytes) else json.dumps(body).encode()
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}\nadmin: 127.0.0.1:{server.server_port}\n")
    ended = shoal("health", "--config", file)
    assert (ended.returncode, ended.stderr) == (1, "")
    return ended.stdout


def test_what_is_not_well_is_told(server, tmp_path):
    said = {"ok": False, "gateway": "gateway1", "failed_tasks": ["expiry", "links"], "kernel_faults": 3}
    told = lines_from(server, tmp_path, 503, said)
    assert told == "gateway1: tasks that fail: expiry, links; kernel faults: 3\n"
    told = lines_from(server, tmp_path, 503, said | {"silent_shards": ["shard1", "shard2"], "status": "failing"})
    assert told == "gateway1: tasks that fail: expiry, links; kernel faults: 3; silent shards: shard1, shard2\n"
    assert "it says that it is not well" in lines_from(server, tmp_path, 503, {"gateway": "gateway1"})


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b"\xff"])
def test_another_server_is_told(server, tmp_path, body):
    assert "the answer is not one of Shoal" in lines_from(server, tmp_path, 200, body)
    assert "is something else" in lines_from(server, tmp_path, 200, {"ok": True})


def test_a_wildcard_is_asked_on_loopback(server):
    server.answer = 200, b'{"ok": true}'
    assert health.health(Endpoint(f"0.0.0.0:{server.server_port}"), 20.0) == {"ok": True}
    with pytest.raises(health.SilentError):
        health.health(Endpoint(f"[::]:{free_port()}"), 20.0)


def test_what_is_not_http_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(health.SilentError, match="not HTTP"):
            health.health(Endpoint(f"127.0.0.1:{listening.getsockname()[1]}"), 20.0)
        thread.join()
