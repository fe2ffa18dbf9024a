"""A link as its own side knows it, with a told clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import frames
from common.control import Hello, pack_states, states_length
from common.link_state import PING_EVERY, RECONNECT_EVERY, SILENT, WINDOW, LinkState

SLICES = 5
CLUSTER = 77
STATES = pack_states([frames.STATE_FULL] * SLICES)
START = 50_000


def pong(**changes):
    hello = Hello(11, 1000, 1, 0, CLUSTER, SLICES, frames.ROLE_SHARD, False, "shard1", states=STATES)
    return hello._replace(**changes)


@pytest.fixture
def link():
    return LinkState("shard1", SLICES, CLUSTER)


def ping(link, now):
    number = link.ping_due(now)
    assert number is not None
    return number


def hear(link, now, **changes):
    """A ping, and its pong at once."""
    return link.take_pong(ping(link, now), pong(**changes), now)


def test_a_ping_is_due_each_half_second(link):
    due = [now for now in range(START, START + 3000, 50) if link.ping_due(now) is not None]
    assert due == list(range(START, START + 3000, PING_EVERY))


def test_pings_are_numbered_from_one(link):
    assert [link.ping_due(START + at) for at in (0, 1, PING_EVERY, 2 * PING_EVERY)] == [1, None, 2, 3]


def test_a_late_tick_makes_no_ping_twice(link):
    assert [link.ping_due(START + at) for at in (0, 5 * PING_EVERY, 5 * PING_EVERY + 1)] == [1, 2, None]


def test_a_shard_is_silent_until_it_answers(link):
    assert link.is_silent(START)
    assert not link.is_usable(START)
    assert (link.boot, link.tick) == (0, 0)
    assert hear(link, START)
    assert not link.is_silent(START)
    assert link.is_usable(START)
    assert (link.boot, link.tick) == (11, 1000)


def test_two_seconds_without_an_answered_ping_are_silence(link):
    assert hear(link, START)
    assert link.is_usable(START + SILENT)
    assert link.is_silent(START + SILENT + 1)
    assert not link.is_usable(START + SILENT + 1)


def test_silence_is_told_from_when_the_ping_was_sent(link):
    number = ping(link, START)
    assert link.take_pong(number, pong(), START + 1500)
    assert link.round_trip == 1500
    assert not link.is_silent(START + SILENT)
    assert link.is_silent(START + SILENT + 1)


def test_a_pong_that_took_two_seconds_counts_and_one_that_took_longer_does_not(link):
    number = ping(link, START)
    assert link.take_pong(number, pong(), START + SILENT)
    late = ping(link, START + SILENT)
    assert not link.take_pong(late, pong(boot=12), START + 2 * SILENT + 1)
    assert (link.late, link.boot) == (1, 11)
    assert link.is_silent(START + 2 * SILENT + 1)


def test_a_pong_whose_ping_was_given_up_does_not_count(link):
    number = ping(link, START)
    for at in range(1, 6):
        ping(link, START + at * PING_EVERY)
    assert number not in link.pings
    assert not link.take_pong(number, pong(), START + 5 * PING_EVERY)
    assert link.late == 1


@pytest.mark.parametrize("number", [0, 2, 1 << 63])
def test_a_pong_without_its_ping_does_not_count(link, number):
    ping(link, START)
    assert not link.take_pong(number, pong(), START)
    assert link.late == 1
    assert link.is_silent(START)


def test_a_pong_counts_once(link):
    number = ping(link, START)
    assert link.take_pong(number, pong(), START)
    assert not link.take_pong(number, pong(), START)


def test_pings_without_a_pong_are_not_kept_for_ever(link):
    for at in range(1000):
        ping(link, START + at * PING_EVERY)
    assert len(link.pings) <= SILENT // PING_EVERY + 1


def test_pongs_that_overtook_each_other_do_not_bring_silence(link):
    first, second = ping(link, START), ping(link, START + 1000)
    assert link.take_pong(second, pong(), START + 1100)
    assert link.take_pong(first, pong(), START + 1200)
    assert not link.is_silent(START + 1000 + SILENT)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cluster": CLUSTER + 1}, "another cluster's key"),
        ({"slices": SLICES + 1, "states": bytes(states_length(SLICES + 1))}, "6 slices"),
        ({"states": STATES + b"\0"}, "slices"),
        ({"states": b""}, "slices"),
        ({"name": "shard2"}, "it is shard2"),
    ],
)
def test_a_shard_that_is_not_the_one_of_the_configuration_is_refused(link, changes, told):
    assert not hear(link, START, **changes)
    assert told in link.refused
    assert link.is_silent(START)
    assert link.pong is None
    assert link.show(START)["refused"] == link.refused
    assert "refused" in repr(link)


def test_a_refused_shard_becomes_silent_and_is_taken_again_once_it_fits(link):
    assert hear(link, START)
    assert not hear(link, START + PING_EVERY, cluster=1)
    assert link.boot == 11
    assert link.is_silent(START + SILENT + 1)
    assert hear(link, START + SILENT + 1)
    assert link.refused == ""
    assert link.is_usable(START + SILENT + 1)


def test_a_shard_that_stops_is_heard_and_not_usable(link):
    assert hear(link, START, stopping=True)
    assert not link.is_silent(START)
    assert not link.is_usable(START)
    assert hear(link, START + PING_EVERY, stopping=False)
    assert link.is_usable(START + PING_EVERY)


def test_the_newest_boot_and_tick_are_known(link):
    assert hear(link, START, boot=1, tick=2)
    assert hear(link, START + PING_EVERY, boot=3, tick=4)
    assert (link.boot, link.tick) == (3, 4)


def test_configurations_may_differ(link):
    assert hear(link, START, version=9, table=123)


# The window


def test_at_most_64_frames_are_unanswered(link):
    for _ in range(WINDOW):
        assert link.has_room()
        link.note_sent()
    assert WINDOW == 64
    assert not link.has_room()
    link.note_replies()
    assert link.has_room()


def test_replies_that_nobody_asked_for_make_no_room(link):
    for _ in range(3):
        link.note_replies()
    for _ in range(WINDOW):
        link.note_sent()
    assert not link.has_room()


def test_a_pong_frees_the_places_of_replies_that_were_lost(link):
    for _ in range(WINDOW):
        link.note_sent()
    number = ping(link, START)
    assert link.take_pong(number, pong(), START + 1)
    assert link.unanswered == 0


def test_frames_sent_after_the_ping_keep_their_places(link):
    for _ in range(10):
        link.note_sent()
    number = ping(link, START)
    for _ in range(3):
        link.note_sent()
    assert link.take_pong(number, pong(), START + 1)
    assert link.unanswered == 3


@pytest.mark.parametrize("change", ["late", "refused"])
def test_a_pong_that_does_not_count_frees_nothing(link, change):
    link.note_sent()
    number = ping(link, START)
    if change == "late":
        assert not link.take_pong(number, pong(), START + SILENT + 1)
    else:
        assert not link.take_pong(number, pong(cluster=0), START)
    assert link.unanswered == 1


@given(st.lists(st.sampled_from(["send", "ping", "answer", "lose"]), max_size=300))
def test_the_window_counts_what_may_still_come(steps):
    """Against a shard that answers in order, some of whose replies are lost."""
    link = LinkState("shard1", SLICES, CLUSTER)
    way = []  # what is not answered, the oldest first: "records", "lost" or a ping's number
    now = START
    for step in steps:
        if step == "send" and link.has_room():
            link.note_sent()
            way.append("records")
        elif step == "ping":
            now += PING_EVERY
            way.append(ping(link, now))
        elif step == "lose" and "records" in way:
            way[way.index("records")] = "lost"
        elif step == "answer" and way:
            first = way.pop(0)
            if first == "records":
                link.note_replies()
            elif first != "lost" and link.take_pong(first, pong(), now):
                assert link.unanswered == way.count("records") + way.count("lost")
        assert way.count("records") <= link.unanswered <= WINDOW


# Connections


def test_a_broken_link_is_silent_until_a_pong(link):
    assert hear(link, START)
    link.note_broken()
    assert link.is_silent(START)
    assert not link.is_usable(START)
    assert hear(link, START + PING_EVERY)
    assert link.is_usable(START + PING_EVERY)


def renewals(link, times):
    return [now for now in times if link.connection_due(now)]


def test_when_a_shard_was_heard_last_is_known_whatever_became_of_the_connection(link):
    assert link.last_heard == -1
    number = ping(link, START)
    assert link.take_pong(number, pong(), START + 30)
    assert link.last_heard == START
    first, second = ping(link, START + PING_EVERY), ping(link, START + 2 * PING_EVERY)
    assert link.take_pong(second, pong(), START + 1100)
    link.note_broken()
    assert link.last_heard == START + 2 * PING_EVERY
    assert link.take_pong(first, pong(), START + 1200)  # it was sent while there was a connection
    assert not link.is_silent(START + 1200)


def test_a_shard_never_heard_gets_a_new_connection_each_ten_seconds(link):
    times = range(START, START + 35_000, 100)
    assert renewals(link, times) == [START + RECONNECT_EVERY * many for many in (1, 2, 3)]


def test_a_shard_that_is_heard_keeps_its_connection(link):
    for now in range(START, START + 60_000, PING_EVERY):
        assert hear(link, now)
        assert not link.connection_due(now)


def test_ten_seconds_count_from_the_beginning_of_silence(link):
    last = START + 40_000
    for now in range(START, last + 1, PING_EVERY):
        assert hear(link, now)
        link.connection_due(now)
    times = range(last, last + 25_000, 100)
    assert renewals(link, times) == [last + SILENT + RECONNECT_EVERY, last + SILENT + 2 * RECONNECT_EVERY]


def test_an_operator_is_shown_the_link(link):
    hear(link, START)
    link.note_sent()
    assert link.show(START) == {
        "shard": "shard1",
        "silent": False,
        "refused": "",
        "unanswered": 1,
        "lost": 0,
        "round_trip_ms": 0,
    }
    assert link.show(START + SILENT + 1)["silent"] is True
    assert "shard1" in repr(link)


def test_frames_whose_replies_did_not_come_are_counted(link):
    for _ in range(3):
        link.note_sent()
    link.note_replies()
    number = ping(link, START)
    link.note_sent()
    assert link.take_pong(number, pong(), START)
    assert (link.lost, link.unanswered) == (2, 1)
