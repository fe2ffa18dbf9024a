"""The embedded tracker as an operator sees it: what it counts, its health, its restarts and its end."""

import asyncio
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from ports import free_port
from trackers import (
    PATIENCE,
    Client,
    Local,
    Process,
    announce_request,
    connect_request,
    get,
    is_answer,
    pack_name,
    parse_metrics,
    scrape_request,
    settings,
)

from cluster import embedded, start
from common import config_source, keys, process
from common.config import Config
from common.process import AdminError
from common.values import Endpoint
from gateway import listening
from gateway.process import announce_urls
from shard.service import OutOfMemoryError

BAD_ID = b"\xff" * 8
TIGHT = {
    "exempt": ["127.0.0.1"],
    "connects": {"rate": 1, "burst": 10},
    "requests": {"rate": 1, "burst": 30},
    "new_swarms": 1,
    "entries": 8,
}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """A running `shoal up` with narrow limits for all but 127.0.0.1."""
    with Process(tmp_path_factory.mktemp("tracker"), listen=["0.0.0.0:0"], limits=TIGHT) as process:
        yield process


@pytest.fixture
def client(tracker):
    with Client(tracker.addresses[0]) as client:
        yield client


@pytest.fixture
def other(tracker, client):
    """A client that is not exempt from limits."""
    with Client(("127.0.0.2", tracker.addresses[0][1])) as other:
        yield other


def refusals(reason):
    return f'shoal_refusals_total{{reason="{reason}"}}'


@pytest.mark.parametrize(
    ("reason", "datagram"),
    [
        ("too_short", lambda _: bytes(15)),
        ("no_connect", lambda _: connect_request(magic=1)),
        ("bad_connection_id", lambda _: announce_request(BAD_ID, bytes(20))),
        ("bad_connection_id", lambda _: scrape_request(BAD_ID, bytes(20))),
        ("bad_connection_id", lambda _: BAD_ID + b"\0\0\0\x63" + bytes(4)),
        ("unknown_action", lambda good: good + b"\0\0\0\x63" + bytes(4)),
        ("malformed_announce", lambda good: announce_request(good, bytes(20))[:97]),
        ("no_hashes", lambda good: scrape_request(good)),
    ],
)
def test_refused_datagrams_are_counted(tracker, client, reason, datagram):
    connection_id = client.id
    before = tracker.metrics()
    client.exchange(*[datagram(connection_id)] * 3)
    after = tracker.metrics()
    assert {name for name in after if "refusals" in name and after[name] != before[name]} == {refusals(reason)}
    assert after[refusals(reason)] - before[refusals(reason)] == 3


def test_sources_beyond_their_limits_are_counted(tracker, client, other):
    connection_id = other.id
    before = tracker.metrics()
    for number in range(10):
        other.announce(number.to_bytes(20, "big"))
    for port in range(2000, 2010):
        other.announce(bytes(20), port=port)
    for _ in range(1000):
        other.send(announce_request(connection_id, bytes(20)))
        other.send(connect_request())
        client.exchange()
        after = tracker.metrics()
        if all(after[refusals(limit)] > before[refusals(limit)] for limit in ("connect_limit", "request_limit")):
            break
    else:
        pytest.fail("no limit was ever reached")
    assert after['shoal_not_stored_total{reason="swarm_limit"}'] >= 8
    assert after['shoal_not_stored_total{reason="entry_limit"}'] >= 3


def test_requests_and_answers_are_counted(tracker, client):
    client.id  # noqa: B018  # asks for it
    before = tracker.metrics()
    client.announce(bytes(20), tail=b"\2\1/")
    client.announce(bytes(20), tail=b"\2")
    client.scrape(bytes(20))
    client.scrape(bytes(20), bytes(20))
    client.exchange(announce_request(BAD_ID, bytes(20)))
    after = tracker.metrics()
    for name, more in {
        'shoal_requests_total{kind="connect"}': 2,
        'shoal_requests_total{kind="announce"}': 3,
        'shoal_requests_total{kind="scrape"}': 2,
        'shoal_answers_total{kind="connect"}': 2,
        'shoal_answers_total{kind="announce"}': 2,
        'shoal_answers_total{kind="scrape"}': 2,
        'shoal_answers_total{kind="error"}': 1,
        "shoal_url_data_total": 1,
        "shoal_bad_options_total": 1,
    }.items():
        assert after[name] - before[name] == more, name
    assert after["shoal_batch_datagrams_sum"] - before["shoal_batch_datagrams_sum"] == 7
    assert after['shoal_peers{family="ipv4",listing="local",role="leecher"}'] >= 1
    assert after["shoal_torrents"] >= 1
    assert 0 < after["shoal_store_bytes"] < after["shoal_store_ceiling_bytes"] == 64 << 20
    for name in ("shoal_unsent_total", "shoal_socket_drops_total", "shoal_errors_held_back_total"):
        assert after[name] == 0
    assert after["process_resident_memory_bytes"] > 0


class Deaf:
    """A link to a shard that never replies."""

    def __init__(self, router):
        self.router = router

    def hand_over(self, index):
        self.router.close(index)


def test_what_only_a_broken_cluster_refuses_is_counted(tmp_path):
    admin = f"127.0.0.1:{free_port()}"
    with Local(tmp_path, admin=admin) as tracker:
        gateway = tracker.tracker.gateway
        name = pack_name("127.0.0.1", 5000)
        scrape = scrape_request(tracker.id_of("127.0.0.1"), bytes(20), bytes(20))
        tracker.feed([(pack_name("127.0.0.1", 0), connect_request())])
        gateway.router.links = [Deaf(gateway.router)]
        for _ in range(3):
            tracker.feed([(name, scrape)] * 400, now=1_000_000)
        assert tracker.call(gateway.codec.expire_gathers, 4_000_001) == 1024
        tracker.call(gateway.router.take_replies, b"no frame", 0)
        shown = parse_metrics(get(admin, "/metrics")[1])
    assert shown[refusals("bad_source")] == 1
    assert shown[refusals("gather_full")] == 1200 - 1024
    assert shown[refusals("gather_late")] == 1024
    assert shown[refusals("bad_reply")] == 1


def test_health(tracker):
    status, body = tracker.get("/health")
    assert status == 200
    assert '"ok": true' in body
    assert tracker.get("/nothing")[0] == 404


def test_it_ends_with_all_its_processes(tmp_path):
    with Process(tmp_path) as tracker:
        worker = os.pidfd_open(tracker.worker())
        tracker.process.send_signal(signal.SIGTERM)
        assert tracker.process.wait(5) == 0
        assert select.select([worker], [], [], 0)[0]
        os.close(worker)


def test_datagrams_wait_for_the_next_worker(tmp_path):
    with Process(tmp_path) as tracker, Client(tracker.addresses[0]) as client:
        client.announce(bytes(20))
        before = tracker.worker()
        os.kill(before, signal.SIGSTOP)
        request = announce_request(client.id, bytes(20), port=2000)
        client.send(request)
        os.kill(before, signal.SIGKILL)
        assert is_answer(client.receive(), request)
        assert tracker.worker() != before


def test_no_worker_outlives_its_supervisor(tmp_path):
    with Process(tmp_path) as tracker:
        worker = os.pidfd_open(tracker.worker())
        tracker.process.kill()
        assert select.select([worker], [], [], PATIENCE)[0]
        os.close(worker)


@pytest.fixture
def local(tmp_path):
    with Local(tmp_path) as tracker:
        yield tracker


def test_a_broken_key_file_changes_nothing(local, tmp_path, caplog):
    file = tmp_path / keys.CONNECTION_ID
    good = file.read_text()
    with Client(local.addresses[0]) as client:
        file.write_text("broken")
        local.call(local.tracker.gateway.tick)
        assert "the connection-id key is not taken up" in caplog.text
        assert client.announce(bytes(20)).leechers == 1
        file.write_text(good)
        local.call(local.tracker.gateway.tick)
        assert client.connect() == client.id


def test_hangup_takes_up_the_key(tmp_path):
    with Process(tmp_path) as tracker, Client(tracker.addresses[0]) as client:
        before = client.id
        file = tmp_path / "data" / keys.CONNECTION_ID
        stamp = file.stat()
        other = tmp_path / "other"
        other.write_bytes(file.read_bytes())
        other.chmod(0o600)
        keys.rotate_connection_key(other, 4e9)
        file.write_bytes(other.read_bytes())  # with inode and time as before, so that only the signal tells of it
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        tracker.process.send_signal(signal.SIGHUP)
        while client.connect() == before:
            time.sleep(0.02)
        assert client.announce(bytes(20)).leechers == 1


def test_figures(local, caplog):
    caplog.set_level(logging.INFO)
    with Client(local.addresses[0]) as client:
        client.announce(bytes(20))
        client.exchange(bytes(15))
    with urllib.request.urlopen(f"http://127.0.0.1:{local.addresses[0][1]}/scrape", timeout=PATIENCE) as answer:
        assert b"failure reason" in answer.read()
    local.call(local.tracker.figures.tell)
    assert " answers/s, 2 refused, 1 torrents, 1 peers, " in caplog.text


def run_for_three_calls(tracker, call):
    """Let a tracker call something again and again until it was called three times."""
    calls = []

    async def run():
        done = asyncio.Event()

        def counted():
            calls.append(None)
            if len(calls) == 3:
                done.set()
            call()

        tracker.periodic.every(0.001, "counted", counted)
        await asyncio.wait_for(done.wait(), PATIENCE)
        await tracker.stop()

    asyncio.run(run())
    return len(calls)


def test_a_periodic_task_that_fails_goes_on(tmp_path, caplog):
    sock = listening.open_udp(Endpoint("127.0.0.1:0"))
    with sock:
        tracker = embedded.Embedded(Config(data=tmp_path, admin=None), [sock])
        assert tracker.periodic.health()["ok"] is True
        assert run_for_three_calls(tracker, lambda: 1 // 0) == 3
        assert tracker.periodic.health()["ok"] is False
    assert caplog.text.count("a periodic task failed") >= 2


def test_announce_urls():
    sockets = [listening.open_udp(Endpoint(text)) for text in ("127.0.0.1:0", "[::1]:0", "0.0.0.0:0")]
    ports = [sock.getsockname()[1] for sock in sockets]
    sockets.append(listening.open_udp(Endpoint(f"[::]:{ports[2]}")))
    assert announce_urls(sockets) == [
        f"udp://127.0.0.1:{ports[0]}/announce",
        f"udp://[::1]:{ports[1]}/announce",
        f"udp://{socket.gethostname()}:{ports[2]}/announce",
    ]
    for sock in sockets:
        sock.close()


def up_with_taken_admin(tmp_path, taken):
    """`shoal up` whose admin address is somebody else's."""
    file = tmp_path / "cluster.yaml"
    admin = "{}:{}".format(*taken.getsockname())
    file.write_text(json.dumps(settings(tmp_path / "data", admin=admin)))
    command = [sys.executable, "-P", "-m", "cluster", "up", "--config", str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_an_admin_address_that_is_not_free_for_a_moment_is_tried_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, up_with_taken_admin(tmp_path, taken) as tracker:
        for line in tracker.stdout:
            if "tracker ended after" in line:
                taken.close()
            if line.startswith("announce URL: "):
                break
        tracker.send_signal(signal.SIGTERM)
        tracker.stdout.read()
        assert tracker.wait(PATIENCE) == 0


def test_an_admin_address_that_stays_taken_ends_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, up_with_taken_admin(tmp_path, taken) as tracker:
        said = tracker.stdout.read()
        assert tracker.wait(PATIENCE) == 1
        assert "Traceback" not in said
        assert said.count(f"admin: cannot listen on 127.0.0.1:{taken.getsockname()[1]} (TCP): ") == 5
        assert "no worker is left" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (keys.KeyFileError("no key"), "no key"),
        (OutOfMemoryError("no memory"), "no memory"),
        (AdminError("admin: taken"), "admin: taken"),
    ],
)
def test_what_is_missing_is_one_line_and_status_1_as_it_may_come_back(monkeypatch, caplog, error, line):
    def fail(coroutine):
        coroutine.close()
        raise error

    fd = os.memfd_create("config")
    config_source.write(fd, start.document(Config()))
    with listening.open_udp(Endpoint("127.0.0.1:0")) as sock:
        words = ["embedded", "--fds", str(sock.detach()), "--parent-pipe", "0", "--config-fd", str(fd)]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(process.logs, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(process.uvloop, "run", fail)
    assert embedded.main() == 1
    assert line in caplog.text
    os.close(fd)
