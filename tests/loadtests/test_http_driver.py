import bencode2
import pytest
from load_rig import LoadRig
from plain_tracker import CLOSE, PlainTracker, pack, response
from ports import free_port
from trackers import Process

KINDS = {"http-kept": "HTTP kept", "http-oneshot": "HTTP one-shot"}
both = pytest.mark.parametrize("kind", KINDS)
FIRST_PORT = 10_000  # of peers


def part(kind, **more):
    """60 peers in 5 torrents, over IPv4."""
    return {"kind": kind, "rate": 2000, "torrents": 5, "sources": 3, "ports": 20, "ipv6": 0, "tries": 0, **more}


@pytest.fixture(scope="module")
def rig():
    with LoadRig() as rig:
        yield rig


@pytest.fixture(scope="module")
def shoal(tmp_path_factory):
    """The embedded tracker as an operator runs it, on one port for both families; the address to ask."""
    port = free_port()
    gateway = {"name": "gateway1", "listen": [f"127.0.0.1:{port}", f"[::1]:{port}"]}
    with Process(tmp_path_factory.mktemp("shoal"), gateways=[gateway]) as tracker:
        yield tracker.addresses[0]


def close_at_first():
    """Leaves each peer's first announce without an answer."""
    tried = set()

    def spoil(told, asked):
        if asked["peer_id"] in tried:
            return told
        tried.add(asked["peer_id"])
        return CLOSE

    return spoil


def named(kind, request, fault):
    return f"{KINDS[kind]} {request}: {fault}"


# Shoal


def test_shoal_answers_both_kinds_of_load_at_once_without_a_fault(rig, shoal):
    parts = [
        part("http-kept", sources=4, ports=50, ipv6=0.25, scrapes=0.1, hashes=3, stops=0.1, completes=0.1),
        part("http-oneshot", sources=4, ports=50, ipv6=0.25, scrapes=0.1, hashes=3, want=20, rate=500),
    ]
    found = rig.drive(shoal, parts, answers=1500, seed=1)
    assert found["faults"] == {}, found["examples"]
    assert found["totals"].get("lost", 0) == found["totals"].get("first lost", 0) == 0
    assert found["filled"] == [True, True]
    assert found["totals"]["peers"] > 0
    assert {name for name, entry in found["entries"].items() if entry["many"]} == {
        "HTTP kept announce", "HTTP kept scrape", "HTTP one-shot announce", "HTTP one-shot scrape", "load sent late"
    }  # fmt: skip


def test_a_tracker_that_knows_more_than_it_was_told_is_found_out(rig, shoal):
    rig.drive(shoal, [part("http-kept")], answers=60, seed=2)
    found = rig.drive(shoal, [part("http-kept", fill=False)], answers=60, seed=2)  # it says nothing of the first run
    assert found["faults"][named("http-kept", "announce", "departed")] > 0


def test_what_is_left_of_a_driver_that_was_killed_is_nothing(rig, shoal):
    rig.drive(shoal, [part("http-kept")], answers=100, seed=3)  # what is made once is made
    assert rig.drive(shoal, [part("http-kept"), part("http-oneshot")], answers=300, seed=4)["left open"] == []


# Requests


@both
def test_announces_are_those_of_real_clients(rig, kind):
    with PlainTracker() as tracker:
        found = rig.drive(tracker.address, [part(kind, want=30)], answers=200)
    assert found["faults"] == {}
    announce = tracker.asked[0]
    assert announce.path == "/announce"
    assert announce.headers["Host"] == f"127.0.0.1:{tracker.address[1]}"
    assert announce.headers["User-Agent"].startswith("qBittorrent/")
    assert [name for name, _ in announce.pairs] == [
        "info_hash", "peer_id", "port", "uploaded", "downloaded", "left", "corrupt", "key", "event", "numwant",
        "compact", "no_peer_id", "supportcrypto", "redundant",
    ]  # fmt: skip
    assert len(announce["info_hash"]) == len(announce["peer_id"]) == 20
    assert (announce["event"], announce["numwant"], announce["compact"]) == (b"started", b"30", b"1")
    assert len({asked["peer_id"] for asked in tracker.asked}) == found["peers"] == 60
    assert {asked["numwant"] for asked in tracker.asked if ("event", b"stopped") in asked.pairs} <= {b"0"}


@both
def test_peers_keep_their_endpoint_torrent_and_source_address(rig, kind):
    with PlainTracker() as tracker:
        rig.drive(tracker.address, [part(kind)], answers=300)
    by_peer = {}
    for asked in tracker.asked:
        by_peer.setdefault(asked["peer_id"], set()).add((asked.source, asked["port"], asked["info_hash"], asked["key"]))
    assert all(len(each) == 1 for each in by_peer.values())
    endpoints = {(source, int(port)) for each in by_peer.values() for source, port, _, _ in each}
    sources = {source for source, _ in endpoints}
    assert endpoints == {(source, FIRST_PORT + n) for source in sources for n in range(20)}
    assert len(sources) == 3


def test_a_kept_connection_serves_one_source_and_so_many_requests(rig):
    with PlainTracker() as tracker:
        found = rig.drive(tracker.address, [part("http-kept", keep=7, fill=False)], answers=300)
    assert found["faults"] == {}
    by_connection = {}
    for asked in tracker.asked:
        by_connection.setdefault(asked.connection, []).append(asked)
    assert max(map(len, by_connection.values())) == 7
    assert all(len({asked.source for asked in each}) == 1 for each in by_connection.values())
    assert all("Connection" not in asked.headers for asked in tracker.asked)


def test_a_oneshot_connection_serves_one_request_and_is_to_be_closed(rig):
    with PlainTracker() as tracker:
        rig.drive(tracker.address, [part("http-oneshot", fill=False)], answers=100)
    assert {asked.place for asked in tracker.asked} == {1}
    assert {asked.headers["Connection"] for asked in tracker.asked} == {"close"}


def test_each_peer_is_told_to_the_tracker_before_latencies_count(rig):
    with PlainTracker() as tracker:
        found = rig.drive(tracker.address, [part("http-oneshot")], answers=150)
    filling = tracker.asked[:60]
    assert len({asked["peer_id"] for asked in filling}) == 60
    assert {asked["event"] for asked in filling} == {b"started"}
    assert found["entries"]["HTTP one-shot announce"]["many"] == found["totals"]["answers"] - 60
    assert found["all"]["many"] == found["totals"]["answers"] - 60  # how late they left is no request


def test_scrapes_ask_for_several_torrents(rig):
    with PlainTracker() as tracker:
        found = rig.drive(tracker.address, [part("http-kept", scrapes=0.5, hashes=4)], answers=300)
    assert found["faults"] == {}
    scrapes = [asked for asked in tracker.asked if asked.path == "/scrape"]
    assert len(scrapes) > 50
    assert all([name for name, _ in asked.pairs] == ["info_hash"] * 4 for asked in scrapes)
    assert found["entries"]["HTTP kept scrape"]["many"] > 50


# Open loop


@both
def test_requests_leave_when_due_though_none_is_answered_until_all_peers_wait(rig, kind):
    with PlainTracker(lambda told, asked: None) as tracker:
        found = rig.drive(tracker.address, [part(kind, fill=False)], patience=30, held=1)
        assert len(tracker.asked) <= 60
    assert 30 < found["totals"]["sent"] <= 60
    assert found["totals"].get("answers", 0) == 0


def test_a_latency_counts_from_when_the_request_was_due(rig):
    with PlainTracker(close_at_first()) as tracker:
        found = rig.drive(tracker.address, [part("http-oneshot", fill=False, tries=1)], again=0.2, answers=1)
    assert found["entries"]["HTTP one-shot announce"]["most"] >= 200  # the wait before it was asked again is part of it


def test_other_greenlets_run_beside_a_driver(rig):
    with PlainTracker() as tracker:
        assert rig.drive(tracker.address, [part("http-kept", rate=1_000_000)], answers=300)["turns"] > 1


def test_a_driver_has_as_many_connections_as_the_system_allows(rig):
    with PlainTracker(lambda told, asked: None) as tracker:
        found = rig.drive(tracker.address, [part("http-oneshot", fill=False)], patience=30, files=30, held=1)
    assert found["totals"]["sent"] > 30
    assert found["totals"].get("first lost", 0) == 0


# Wrong answers


def few(told, asked):
    return {**told, b"peers": told[b"peers"][: len(told[b"peers"]) // 12 * 6]}


def stranger(told, asked):
    return {**told, b"peers": told[b"peers"] + pack(("127.9.9.9", 6881))}


def own(told, asked):
    return {**told, b"peers": told[b"peers"] + pack((asked.source, int(asked["port"])))}


def twice(told, asked):
    return {**told, b"peers": told[b"peers"] + told[b"peers"][:6]}


def seeders(told, asked):
    return {**told, b"complete": told[b"complete"] + 60}


def leechers(told, asked):
    return {**told, b"incomplete": told[b"incomplete"] + 60}


@both
@pytest.mark.parametrize("spoil", [few, stranger, own, twice, seeders, leechers], ids=lambda spoil: spoil.__name__)
def test_a_wrong_answer_is_found_and_named(rig, kind, spoil):
    with PlainTracker(spoil) as tracker:
        found = rig.drive(tracker.address, [part(kind, torrents=2, seeds=0, completes=0)], answers=100)
    assert set(found["faults"]) == {named(kind, "announce", spoil.__name__)}


def test_a_tracker_that_forgets_announces_now_and_then_is_found_out(rig):
    with PlainTracker() as tracker:

        def forget(told, asked):
            if asked.number % 50 == 49:
                tracker.swarms[asked["info_hash"]].clear()
            return told

        tracker.spoil = forget
        found = rig.drive(tracker.address, [part("http-kept", seeds=0, stops=0, completes=0)], answers=200)
    assert named("http-kept", "announce", "leechers") in found["faults"]
    assert named("http-kept", "announce", "few") in found["faults"]


def test_what_is_missing_is_no_fault_unless_the_part_is_strict(rig):
    with PlainTracker(few) as tracker:
        assert rig.drive(tracker.address, [part("http-kept", strict=False)], answers=100)["faults"] == {}


@both
def test_a_failure_reason_is_an_error(rig, kind):
    with PlainTracker(lambda told, asked: {b"failure reason": b"no"}) as tracker:
        found = rig.drive(tracker.address, [part(kind)], answers=100)
    assert set(found["faults"]) == {named(kind, "announce", "error")}
    assert found["unsure"] > 0  # it may have been heard all the same


@both
@pytest.mark.parametrize("answer", [response(b"d8:completei1e"), b"x" * 9000, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
def test_what_is_no_answer_is_malformed(rig, kind, answer):
    with PlainTracker(lambda told, asked: answer) as tracker:
        found = rig.drive(tracker.address, [part(kind)], sent=100)
    assert set(found["faults"]) == {named(kind, "announce", "malformed")}


@both
def test_an_answer_that_is_longer_than_it_says_is_malformed(rig, kind):
    with PlainTracker(lambda told, asked: response(bencode2.bencode(told)) + b"more") as tracker:
        found = rig.drive(tracker.address, [part(kind)], sent=100)
    assert set(found["faults"]) == {named(kind, "announce", "malformed")}


def test_a_scrape_that_is_wrong_is_found_and_named(rig):
    def spoil(told, asked):
        if asked.path == "/scrape":
            for counts in told[b"files"].values():
                counts[b"complete"] += 60
        return told

    with PlainTracker(spoil) as tracker:
        found = rig.drive(tracker.address, [part("http-kept", scrapes=0.5)], answers=200)
    assert set(found["faults"]) == {named("http-kept", "scrape", "seeders")}


def test_a_scrape_that_is_refused_is_an_error(rig):
    def spoil(told, asked):
        return told if asked.path == "/announce" else {b"failure reason": b"no"}

    with PlainTracker(spoil) as tracker:
        found = rig.drive(tracker.address, [part("http-oneshot", scrapes=0.5)], answers=200)
    assert set(found["faults"]) == {named("http-oneshot", "scrape", "error")}


# No answer


@both
@pytest.mark.parametrize("answer", [None, CLOSE], ids=["silence", "end"])
def test_an_announce_without_an_answer_is_lost(rig, kind, answer):
    with PlainTracker(lambda told, asked: answer) as tracker:
        found = rig.drive(tracker.address, [part(kind, fill=False)], patience=0.1, lost=100)  # some twice
    assert set(found["faults"]) == {named(kind, "announce", "lost")}
    assert found["totals"]["lost"] == found["totals"]["first lost"] == found["faults"][named(kind, "announce", "lost")]
    assert found["unsure"] > 0


@both
def test_an_announce_is_lost_if_nobody_listens(rig, kind):
    found = rig.drive(("127.0.0.1", free_port()), [part(kind, fill=False)], lost=30)
    assert set(found["faults"]) == {named(kind, "announce", "lost")}


def test_half_an_answer_is_none(rig):
    def spoil(told, asked):
        return b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nd8:comp"

    with PlainTracker(spoil, keeps=False) as tracker:
        found = rig.drive(tracker.address, [part("http-kept", fill=False)], lost=30)
    assert set(found["faults"]) == {named("http-kept", "announce", "lost")}


def test_an_answer_whose_connection_stays_open_is_lost_if_it_was_to_be_closed(rig):
    def spoil(told, asked):
        asked.headers.pop("Connection")  # the tracker has not heard that
        return told

    with PlainTracker(spoil) as tracker:
        found = rig.drive(tracker.address, [part("http-oneshot", fill=False)], patience=0.1, lost=30)
    assert set(found["faults"]) == {named("http-oneshot", "announce", "lost")}


@both
def test_what_was_lost_is_asked_again_and_only_then_given_up(rig, kind):
    with PlainTracker(close_at_first()) as tracker:
        found = rig.drive(tracker.address, [part(kind, tries=1)], again=0.05, answers=150)
    assert found["faults"] == {}
    assert found["totals"]["first lost"] == found["totals"]["sent again"] == 60
    assert found["totals"].get("lost", 0) == 0
    assert found["unsure"] <= 60


def test_who_is_asked_again_says_the_same(rig):
    with PlainTracker(lambda told, asked: CLOSE) as tracker:
        found = rig.drive(tracker.address, [part("http-oneshot", fill=False, tries=2)], again=0.02, lost=10)
    said = {}
    for asked in tracker.asked:
        said.setdefault(asked["peer_id"], []).append(asked.pairs)
    assert max(map(len, said.values())) >= 3
    assert all(pairs == each[0] for each in said.values() for pairs in each[:3])
    assert found["totals"]["sent again"] >= 2 * found["totals"]["lost"]


@pytest.mark.parametrize("tells", [True, False])
def test_a_kept_connection_that_the_tracker_closes_is_no_fault(rig, tells):
    """Whether it says so or not: the next request may be under way by then."""

    def spoil(told, asked):
        return response(bencode2.bencode(told), "200 OK", "Connection: close") if tells else told

    with PlainTracker(spoil, keeps=False) as tracker:
        found = rig.drive(tracker.address, [part("http-kept")], answers=200)
    assert found["faults"] == {}
    assert found["totals"].get("first lost", 0) == 0


def test_a_request_that_meets_the_end_of_a_kept_connection_is_sent_once_more(rig):
    def spoil(told, asked):
        return CLOSE if asked.place == 2 else told

    with PlainTracker(spoil) as tracker:
        found = rig.drive(tracker.address, [part("http-kept")], answers=200)
    assert found["totals"].get("first lost", 0) == 0
    assert found["faults"] == {}
    assert max(asked.place for asked in tracker.asked) == 2


# Latencies


def test_latencies_are_kept_in_buckets_of_at_most_3_percent(rig):
    each = [1, 63, 64, 1000, 999_999, 123_456_789, 60_000_000_000]
    for ns in each:
        batch = rig.batch([ns])
        ((middle, many),) = batch["latencies"]
        assert many == 1
        assert abs(middle - ns / 1e6) <= max(0.016 * ns, 1) / 1e6
    batch = rig.batch(each)
    assert sum(many for _, many in batch["latencies"]) == len(each)
    assert batch["total"] == pytest.approx(sum(each) / 1e6)
    assert (batch["least"], batch["most"], batch["size"]) == (1 / 1e6, 60_000, 100 * len(each))
