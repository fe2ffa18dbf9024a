"""curl asks the tracker, as operators and scripts do."""

import json
import os
import subprocess
from typing import NamedTuple

import pytest
from http_client import announce_target, decode, peers_of, scrape_target


class Transfer(NamedTuple):
    """One of the transfers of a call: what curl writes of it, its headers by name, and its body."""

    told: dict
    headers: dict
    body: bytes


def curl(folder, *arguments, targets):
    """Get targets one after the other with one call of curl."""
    command = ["curl", "--silent", "--show-error", "--disable", "--noproxy", "*", "--max-time", "20", "--globoff"]
    command += ["--write-out", "%{json}\n%{header_json}\n"]
    files = [folder / f"body{index}" for index in range(len(targets))]
    for file, target in zip(files, targets, strict=True):
        command += ["--output", str(file), target]
    try:
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.fail("curl is missing; this installs it: sudo apt-get install -y curl", pytrace=False)
    assert ended.returncode == 0, ended.stderr
    return [read_transfer(text, file) for text, file in zip(documents(ended.stdout), files, strict=True)]


def documents(text):
    """Pairs of JSON documents: what curl tells of a transfer, and its headers."""
    decoder = json.JSONDecoder()
    found = []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return list(zip(found[::2], found[1::2], strict=True))


def read_transfer(pair, file):
    told, headers = pair
    return Transfer(told, headers, file.read_bytes() if file.exists() else b"")


@pytest.fixture(params=["ipv4", "ipv6"])
def url(request, tracker):
    """Where the tracker is, over IPv4 and over IPv6."""
    host, port = tracker.addresses[request.param == "ipv6"]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@pytest.fixture
def swarm():
    """The info-hash of a torrent that nobody knows."""
    return os.urandom(20)


def test_announces_and_scrapes_are_answered(tmp_path, url, swarm):
    first, second, scrape = curl(
        tmp_path,
        targets=[
            url + announce_target(swarm, port=7001, left=0, event="started"),
            url + announce_target(swarm, port=7002, event="started"),
            url + scrape_target(swarm),
        ],
    )
    for transfer in (first, second, scrape):
        assert (transfer.told["http_code"], transfer.told["http_version"]) == (200, "1.1")
        assert transfer.told["content_type"] == "text/plain"
    assert peers_of(decode(first.body)) == []
    assert [port for _, port in peers_of(decode(second.body))] == [7001]
    assert decode(scrape.body)[b"files"][swarm][b"complete"] == 1
    assert decode(scrape.body)[b"files"][swarm][b"incomplete"] == 1


def test_a_connection_is_used_again_for_all_paths(tmp_path, url, swarm):
    paths = [announce_target(swarm), scrape_target(swarm), "/", announce_target(swarm), "/health", scrape_target(swarm)]
    transfers = curl(tmp_path, targets=[url + path for path in paths])
    assert [transfer.told["num_connects"] for transfer in transfers] == [1, 0, 0, 0, 0, 0]
    assert {transfer.told["http_code"] for transfer in transfers} == {200}
    assert len({transfer.told["local_port"] for transfer in transfers}) == 1
    assert decode(transfers[3].body)[b"incomplete"] == decode(transfers[0].body)[b"incomplete"] == 1
    assert json.loads(transfers[4].body) == {"ok": True}


def test_http_1_0_is_answered_and_the_connection_closed(tmp_path, url, swarm):
    transfers = curl(tmp_path, "--http1.0", targets=[url + announce_target(swarm), url + scrape_target(swarm)])
    assert [transfer.told["num_connects"] for transfer in transfers] == [1, 1]
    for transfer in transfers:
        assert transfer.told["http_code"] == 200
        assert transfer.headers["connection"] == ["close"]
        assert transfer.told["size_download"] == len(transfer.body) == int(transfer.headers["content-length"][0])
    assert decode(transfers[1].body)[b"files"][swarm][b"incomplete"] == 1


def test_a_client_that_wants_it_closed_is_heard(tmp_path, url, swarm):
    targets = [url + announce_target(swarm), url + announce_target(swarm)]
    transfers = curl(tmp_path, "--header", "Connection: close", targets=targets)
    assert [transfer.told["num_connects"] for transfer in transfers] == [1, 1]
    assert [transfer.headers["connection"] for transfer in transfers] == [["close"], ["close"]]


def test_head_is_answered_with_the_length_alone(tmp_path, url, swarm):
    """curl writes what it got, the head, to its output, and waits for no body."""
    asked = scrape_target(swarm)
    head, again = curl(tmp_path, "--head", targets=[url + asked, url + asked])
    (whole,) = curl(tmp_path, targets=[url + asked])
    for transfer in (head, again):
        assert transfer.told["http_code"] == 200
        assert transfer.told["size_download"] == 0
        assert transfer.headers["content-length"] == whole.headers["content-length"] == [str(len(whole.body))]
    assert (head.told["num_connects"], again.told["num_connects"]) == (1, 0)


def test_a_refusal_is_an_answer(tmp_path, url):
    short, unknown = curl(tmp_path, targets=[url + announce_target(b"short"), url + "/announce/more"])
    assert short.told["http_code"] == 200
    assert decode(short.body)[b"failure reason"] == b"invalid info_hash"
    assert unknown.told["http_code"] == 404


def test_nothing_is_compressed(tmp_path, url, swarm):
    hashes = [swarm[:19] + bytes([last]) for last in range(74)]
    (transfer,) = curl(tmp_path, "--compressed", targets=[url + scrape_target(*hashes)])
    assert sorted(decode(transfer.body)[b"files"]) == hashes
    assert "content-encoding" not in transfer.headers
