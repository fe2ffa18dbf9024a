"""`shoal top`: what a cluster does between two looks; on a terminal it ends with q or Ctrl-C."""

import re
import threading

import pytest
from processes import Cluster, shoal, shoal_json, shoal_refuses, until
from rich.console import Console
from terminal import Terminal
from told_shards import cluster, owned, told
from trackers import Client, Process

from cluster import status, top
from cluster.top import Rates


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A gateway and two shards, linked by CURVE."""
    directory = tmp_path_factory.mktemp("top")
    with Cluster(directory, gateways=1, shards=2, transport="curve", nodes=2) as started:
        until(lambda: shoal_json("status", "--config", started.file)[1]["ok"])
        with Client(started.gateway_address("gateway1")) as client:
            client.announce(b"t" * 20, left=0, port=7001)
            client.announce(b"t" * 20, left=1, port=7002)
        yield started


# Figures


def looks(*shards):
    """Looks at a cluster of two shards, which say what is given."""
    wanted = cluster(2)
    return [status.describe(wanted, told(wanted, **each)) for each in shards]


def counts(**more):
    """What a shard says that copies."""
    return {"copies": {"fill": {}, "counts": more, "sources": []}, "boot": "1"}


def drawn(document, rates):
    console = Console(width=200)
    with console.capture() as capture:
        for part in top.parts("cluster.yaml", document, rates):
            console.print(part)
    return capture.get()


def test_rates_are_the_difference_of_two_looks():
    rates = Rates()
    first, second = looks(
        {"shard1": counts(bytes=1000), "shard2": None}, {"shard1": counts(bytes=7000), "shard2": None}
    )
    assert rates.note(first, 100.0)
    assert rates.of(first["shards"][0], "copied") is None
    assert not rates.note(second, 102.0)
    assert rates.of(second["shards"][0], "copied") == 3000
    assert rates.of(second["shards"][1], "copied") is None


def test_a_process_that_starts_again_begins_anew():
    rates = Rates()
    first, second = looks({"shard1": counts(bytes=1000)}, {"shard1": counts(bytes=10) | {"boot": "2"}})
    rates.note(first, 100.0)
    rates.note(second, 101.0)
    assert rates.of(second["shards"][0], "copied") is None


def test_a_gateway_and_shards_have_a_row_each():
    wanted = cluster(2)
    link = {"shard": "shard2", "silent": False, "refused": "", "unanswered": 1, "round_trip_ms": 12}
    report = {
        "answers_per_s": 1200,
        "refusals_per_s": 7,
        "connections": 3,
        "shed": 50,
        "links": [link, link | {"silent": True}],
    }
    ping = {"name": "gateway1", "role": "gateway", "heard_ms": 3, "boot": "9", "config_version": 1, "report": report}
    rows = owned(wanted, "shard1", torrents=1, leechers=2, seeders=3)
    said = {"rows": rows, "announces_per_s": 1234, "peers": [ping], "links": [link], **counts(bytes=0)}
    later = said | counts(bytes=3 << 20) | {"peers": [ping | {"report": report | {"shed": 90}}]}
    rates = Rates()
    first, second = looks({"shard1": said, "shard2": None}, {"shard1": later, "shard2": None})
    rates.note(first, 1.0)
    rates.note(second, 3.0)
    shown = drawn(second, rates)
    many = len(rows)
    assert re.search(r"\ngateway1 +1,200 +7 +20 +3 +1 of 2 +12 ms *\n", shown)
    assert re.search(rf"\nshard1 +1,234 +{many} +{5 * many:,} +1.0 MiB of 16 MiB +{many} +1.5 MiB +12 ms *\n", shown)
    assert re.search(r"\nshard2 +- +- +- +- +- +- +- *\n", shown)
    assert "\nshard2: silent: no answer\n" in shown
    assert f"1,200 answers and 7 refusals a second; {many} torrents, {5 * many:,} peers" in shown


def test_who_tells_little_is_shown_all_the_same():
    wanted = cluster(1)
    (shard,) = told(wanted, shard1=[])
    shard = {name: shard[name] for name in ("name", "node", "link", "state")}
    document = status.describe(wanted, [shard])
    rates = Rates()
    rates.note(document, 1.0)
    assert re.search(r"\nshard1 +- +- +- +- +- +- +- *\n", drawn(document, rates))
    assert re.search(r"\ngateway1 +- +- +- +- +- +- *\n", drawn(document, rates))


# As an operator has it


def test_once_is_for_a_pipe(running):
    ended = shoal("top", "--once", "--interval", "0.5", "--config", running.file)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.match(rf"\d\d:\d\d:\d\d  {running.file}, version 1\n", ended.stdout)
    assert "1 torrent, 2 peers" in ended.stdout
    assert re.search(r"\ngateway1 +\d+ +0 +0 +0 +2 of 2 +\d+ ms *\n", ended.stdout)
    assert len(re.findall(r"\nshard\d +\d+ +\d +\d +\S+ MiB of 16 MiB +\d+ +\d+ B +\d+ ms", ended.stdout)) == 2


def test_q_ends_it(running):
    with Terminal("top", "--interval", "0.3", "--config", running.file, columns=100) as terminal:
        for _ in range(2):
            terminal.until(r"gateway1(.|\n)*shard2")
        assert not terminal.is_as_before()  # keys come without Enter
        terminal.press("xq")
        assert terminal.ended() == 0
        assert terminal.is_as_before()
        assert terminal.raw.count("\x1b[?1049h") == terminal.raw.count("\x1b[?1049l") == 1  # a screen of its own


def test_ctrl_c_ends_it(running):
    with Terminal("top", "--config", running.file) as terminal:
        terminal.until("gateway1")
        terminal.interrupt()
        assert terminal.ended() == 0
        assert terminal.is_as_before()
        assert "Traceback" not in terminal.shown


def test_other_keys_do_nothing(running):
    with Terminal("top", "--interval", "0.3", "--config", running.file) as terminal:
        terminal.until("gateway1")
        terminal.press("x\x04\r")  # Ctrl-D, too
        terminal.until("gateway1")
        terminal.press("Q")
        assert terminal.ended() == 0


def test_the_embedded_tracker_is_shown_too(tmp_path):
    with Process(tmp_path) as tracker:
        with Client(tracker.addresses[0]) as client:
            stop = threading.Event()

            def announce():
                while not stop.is_set():
                    client.announce(b"s" * 20)

            announcing = threading.Thread(target=announce)
            announcing.start()
            try:
                ended = shoal("top", "--once", "--config", tracker.file)
            finally:
                stop.set()
                announcing.join()
        assert (ended.returncode, ended.stderr) == (0, "")
        assert re.match(r"\d\d:\d\d:\d\d  [1-9][\d,]* announces a second, 0 refused\n", ended.stdout)
        assert "all is well" in ended.stdout


def test_mistakes_are_one_line(tmp_path):
    assert "no such file" in shoal_refuses("top", "--config", tmp_path / "no.yaml")
