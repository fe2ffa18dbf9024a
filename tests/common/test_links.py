"""ZeroMQ sockets between processes, for real: who is let in, who is not, and what is counted."""

import asyncio
import contextlib
import socket

import pytest
import uvloop
import zmq

from common import config, links
from common.batch_io import allocate
from common.keys import NodeKey
from common.link_sockets import LinkSockets
from common.link_state import RECONNECT_EVERY, LinkState
from common.links import Doorman, KeyPair, LinkError, Watched

PATIENCE = 20
LONGEST = bytes(links.LONGEST_RECORDS - 64)  # CURVE adds some


def a_pair():
    return KeyPair(*zmq.curve_keypair())


SERVER, FRIEND, STRANGER = a_pair(), a_pair(), a_pair()


async def until(condition):
    """Let the loop run until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


class Door:
    """A shard's socket with its doorman; what comes in is kept, and sent back."""

    def __init__(self, address, mine=SERVER, known=(FRIEND.public,)):
        self.context = zmq.Context()
        self.sock = links.prepare(self.context, mine)
        loop = asyncio.get_running_loop()
        self.doorman = Doorman(loop, self.sock, known)
        links.bind(self.sock, address)
        self.address = self.sock.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.taken = []
        self.watched = Watched(loop, self.sock, self.take)

    def take(self):
        parts = links.receive_parts(self.sock)
        if parts is None:
            return False
        self.taken.append(parts[1:])
        self.sock.send_multipart(parts, zmq.NOBLOCK)
        return True

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    @property
    def refused(self):
        return {reason: count for reason, count in self.doorman.refused.items() if count}

    def close(self):
        self.doorman.close()
        self.watched.close()
        self.context.destroy(0)


class Caller:
    """A link to a door; what comes back is kept."""

    def __init__(self, address, mine=FRIEND, theirs=SERVER.public):
        self.context = zmq.Context()
        self.sock = links.connect(self.context, address, mine, theirs)
        self.heard = []
        self.watched = Watched(asyncio.get_running_loop(), self.sock, self.take)

    def take(self):
        parts = links.receive_parts(self.sock)
        if parts is None:
            return False
        self.heard.append(parts)
        return True

    def say(self, *parts):
        """Whether there was somebody to take it."""
        try:
            self.sock.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self.watched.check()
        return True

    async def echo(self, *parts):
        """Say something, and hear it back."""
        await until(lambda: self.say(*parts))
        await until(lambda: self.heard)
        assert self.heard.pop() == list(parts)

    def close(self):
        self.watched.close()
        self.context.destroy(0)


@contextlib.asynccontextmanager
async def opened(kind, *wanted, **words):
    one = kind(*wanted, **words)
    try:
        yield one
    finally:
        one.close()


def on_loop(test):
    """A test that runs on the loop of the product."""

    def run(*wanted, **words):
        uvloop.run(test(*wanted, **words))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__wrapped__ = test
    return run


def test_addresses_and_keys_are_those_of_the_configuration(tmp_path):
    document = {
        "data": str(tmp_path),
        "nodes": [{"name": "a", "key": FRIEND.public.decode()}, {"name": "b", "key": STRANGER.public.decode()}],
        "gateways": [{"name": "gateway1", "node": "a"}],
        "shards": [
            {"name": "shard1", "node": "b", "link": "tcp://192.0.2.1:7000"},
            {"name": "shard2", "node": "a", "link": "tcp://192.0.2.2:7000"},
        ],
    }
    wanted = config.read(document)
    assert links.addresses(wanted) == {
        "shard1": ("tcp://192.0.2.1:7000", STRANGER.public),
        "shard2": ("tcp://192.0.2.2:7000", FRIEND.public),
    }
    assert links.known_keys(wanted) == [FRIEND.public, STRANGER.public]


def test_a_configuration_without_keys_has_none(tmp_path):
    wanted = config.read({"data": str(tmp_path), "shards": [{"name": "shard1"}, {"name": "shard2"}]})
    assert links.addresses(wanted) == {name: (f"ipc://{tmp_path}/run/{name}", b"") for name in ("shard1", "shard2")}
    assert links.known_keys(wanted) == []
    assert links.key_pair(None) is None


def test_a_nodes_key_is_what_libzmq_takes():
    assert links.key_pair(NodeKey("one", FRIEND.public.decode(), FRIEND.secret.decode())) == FRIEND


@on_loop
async def test_an_address_that_is_taken_is_refused_in_one_line():
    async with opened(Door, "tcp://127.0.0.1:*") as door, opened(Door, "tcp://127.0.0.1:*") as other:
        address = f"tcp://127.0.0.1:{door.port}"
        with pytest.raises(LinkError, match=f"^cannot listen on {address}: Address already in use$"):
            links.bind(other.sock, address)


@on_loop
async def test_an_address_of_another_machine_is_refused_in_one_line():
    async with opened(Door, "tcp://127.0.0.1:*") as door:
        with pytest.raises(LinkError, match="^cannot listen on tcp://192.0.2.1:7000: Cannot assign requested address$"):
            links.bind(door.sock, "tcp://192.0.2.1:7000")


@pytest.mark.parametrize("address", ["ipc", "tcp://127.0.0.1:*", "tcp://[::1]:*"])
@pytest.mark.parametrize("keys", [True, False])
@on_loop
async def test_messages_go_both_ways(tmp_path, address, keys):
    address = f"ipc://{tmp_path}/link" if address == "ipc" else address
    mine = SERVER if keys and links.is_encrypted(address) else None
    async with (
        opened(Door, address, mine) as door,
        opened(Caller, door.address, FRIEND if keys else None) as caller,
    ):
        for message in (b"", b"one", LONGEST):
            await caller.echo(message)
        assert door.refused == {}


@on_loop
async def test_nothing_is_queued_for_who_is_not_there(tmp_path):
    async with opened(Caller, f"ipc://{tmp_path}/nobody", None) as caller:
        assert not caller.say(b"lost")


@on_loop
async def test_all_that_waits_is_taken_though_sending_ate_the_news(tmp_path):
    """Many at once, more than are taken in a turn of the loop."""
    async with opened(Door, f"ipc://{tmp_path}/link", None) as door, opened(Caller, door.address, None) as caller:
        await until(lambda: caller.say(b"0"))
        for number in range(1, 120):
            assert caller.say(b"%d" % number)
        await until(lambda: len(caller.heard) == 120)
        assert caller.heard == [[b"%d" % number] for number in range(120)]


@on_loop
async def test_what_waits_behind_a_message_that_failed_is_taken(tmp_path):
    async with opened(Door, f"ipc://{tmp_path}/link", None) as door, opened(Caller, door.address, None) as caller:
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(str(what["exception"])))

        def take():
            if not Door.take(door):
                return False
            if door.taken[-1] == [b"bad"]:
                raise RuntimeError("bad")
            return True

        await caller.echo(b"first")
        door.watched.take = take
        for message in (b"bad", b"good", b"bad", b"last"):
            assert caller.say(message)
        await until(lambda: len(caller.heard) == 4)
        assert told == ["bad", "bad"]


@on_loop
async def test_a_closed_socket_is_not_read():
    async with opened(Door, "tcp://127.0.0.1:*") as door, opened(Caller, door.address) as caller:
        await caller.echo(b"one")
        caller.watched.close()
        assert caller.sock.closed


@on_loop
async def test_a_message_that_is_too_long_counts_as_empty(tmp_path):
    async with opened(Door, f"ipc://{tmp_path}/link", None) as door, opened(Caller, door.address, None) as caller:
        buffer = memoryview(bytearray(8))
        lengths = []

        def take():
            if not caller.sock.poll(0):
                return False
            lengths.append(links.receive_into(caller.sock, buffer))
            return True

        caller.watched.take = take
        await until(lambda: caller.say(b"12345678"))
        assert caller.say(b"123456789") and caller.say(b"") and caller.say(b"123")
        await until(lambda: len(lengths) == 4)
        assert lengths == [8, 0, 0, 3]


# Who is not let in


async def strange_link(door, mine, theirs):
    """Knock with ZeroMQ."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.reconnect_ivl = -1  # once
        if mine is not None:
            sock.curve_publickey, sock.curve_secretkey = mine
            sock.curve_serverkey = theirs
        sock.connect(door.address)
        sock.send(b"stranger", zmq.NOBLOCK)
        before = sum(door.refused.values())
        await until(lambda: sum(door.refused.values()) > before)


async def strange_bytes(door, data):
    """Knock with TCP, and stay until the door is shut."""
    before = sum(door.refused.values())
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            await reader.read()
    writer.close()
    await until(lambda: sum(door.refused.values()) > before)


GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\3\1" + b"CURVE" + bytes(15) + b"\0" + bytes(31)
KNOCKS = {
    "a key that is not in the configuration": (strange_link, (STRANGER, SERVER.public), "unknown_key"),
    "a friend who has the shard's key wrong": (strange_link, (FRIEND, STRANGER.public), "handshake"),
    "no key": (strange_link, (None, None), "handshake"),
    "a browser": (strange_bytes, (b"GET / HTTP/1.1\r\nHost: shoal\r\n\r\n",), "not_zeromq"),
    "zeros": (strange_bytes, (bytes(1000),), "not_zeromq"),
    "ones": (strange_bytes, (b"\xff" * 1000,), "handshake"),
    "an old ZeroMQ": (strange_bytes, (b"\1\0" * 100,), "not_zeromq"),
    "another mechanism": (strange_bytes, (GREETING.replace(b"CURVE", b"PLAIN"),), "handshake"),
    "a greeting, then a message": (strange_bytes, (GREETING + b"\0\5hello",), "handshake"),
    "a greeting, then a long command": (strange_bytes, (GREETING + b"\4\xc8" + b"\5HELLO" + bytes(194),), "handshake"),
    "a greeting, then too much": (strange_bytes, (GREETING + b"\6\x7f" + b"\xff" * 7 + bytes(99),), "not_zeromq"),
}


@pytest.mark.parametrize("knock", KNOCKS)
@on_loop
async def test_a_stranger_gets_nothing_and_is_counted(knock):
    come, wanted, reason = KNOCKS[knock]
    async with opened(Door, "tcp://127.0.0.1:*") as door, opened(Caller, door.address) as before:
        await before.echo(b"before")
        await come(door, *wanted)
        await before.echo(b"during")
        await come(door, *wanted)
        assert door.refused == {reason: 2}
        async with opened(Caller, door.address) as after:
            await after.echo(b"after")
        await before.echo(b"at the end")
        assert [parts for (parts,) in door.taken] == [b"before", b"during", b"after", b"at the end"]
        assert door.refused == {reason: 2}


@on_loop
async def test_who_leaves_at_once_is_counted():
    async with opened(Door, "tcp://127.0.0.1:*") as door:
        socket.create_connection(("127.0.0.1", door.port)).close()
        await until(lambda: door.refused)
        assert door.refused == {"handshake": 1}


@on_loop
async def test_who_says_nothing_is_shown_out_and_friends_are_not_counted_for_it():
    async with opened(Door, "tcp://127.0.0.1:*") as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        await until(lambda: door.doorman.waiting)
        for _ in range(3):
            async with opened(Caller, door.address) as friend:
                await friend.echo(b"meanwhile")
        await strange_bytes(door, b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == GREETING[:9].replace(bytes(8), bytes(7) + b"\1") + b"\x7f"
        writer.close()
        await until(lambda: "handshake" in door.refused)
        async with opened(Caller, door.address) as friend:
            await friend.echo(b"after")
        await strange_bytes(door, b"GET / HTTP/1.1\r\n\r\n")  # by now all that left has been told of
        assert door.refused == {"handshake": 1, "not_zeromq": 2}
        assert not door.doorman.waiting
        assert len(door.taken) == 4


@on_loop
async def test_friends_and_strangers_who_come_at_once_are_told_apart_in_number():
    """The system says that a handshake succeeded, not whose."""
    async with opened(Door, "tcp://127.0.0.1:*") as door:
        with contextlib.ExitStack() as stack:
            friends = []
            for _ in range(5):
                stack.enter_context(socket.create_connection(("127.0.0.1", door.port)))
                friends.append(Caller(door.address))
                stack.callback(friends[-1].close)
            await asyncio.gather(*[friend.echo(b"here") for friend in friends])
        await until(lambda: door.refused == {"handshake": 5})
        await strange_bytes(door, bytes(99))
        assert door.refused == {"handshake": 5, "not_zeromq": 1}
        assert not door.doorman.waiting


class Relay:
    """Between a caller and a door: keeps what the caller sent, byte for byte."""

    def __init__(self, port):
        self.to = port
        self.recorded = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.tasks = []
        self.spoils = False  # the next that the caller sends

    async def start(self):
        self.server = await asyncio.start_server(self.pass_on, sock=self.listener)

    async def pass_on(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        self.tasks = [
            asyncio.create_task(self.pump(reader, far_writer, self.recorded)),
            asyncio.create_task(self.pump(far_reader, writer, bytearray())),
        ]

    async def pump(self, reader, writer, kept):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.spoils and kept is self.recorded:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                    self.spoils = False
                kept += data
                writer.write(data)
        writer.close()


@on_loop
async def test_a_recorded_session_that_is_played_again_is_refused():
    async with opened(Door, "tcp://127.0.0.1:*") as door, opened(Caller, door.address) as friend:
        await friend.echo(b"before")
        relay = Relay(door.port)
        await relay.start()
        async with opened(Caller, f"tcp://127.0.0.1:{relay.port}") as recorded:
            await recorded.echo(b"announce")
        await asyncio.gather(*relay.tasks)
        relay.server.close()
        session = bytes(relay.recorded)
        assert session.startswith(b"\xff") and b"CURVE" in session and b"announce" not in session
        for _ in range(2):
            await strange_bytes(door, session)
        await friend.echo(b"during")
        assert door.refused == {"handshake": 2}
        assert [parts for (parts,) in door.taken] == [b"before", b"announce", b"during"]


@on_loop
async def test_a_message_that_is_changed_under_way_is_not_taken_nor_what_follows_it():
    async with opened(Door, "tcp://127.0.0.1:*") as door:
        relay = Relay(door.port)
        await relay.start()
        async with opened(Caller, f"tcp://127.0.0.1:{relay.port}") as friend:
            await friend.echo(b"before")
            relay.spoils = True
            assert friend.say(b"changed")
            await until(lambda: door.refused)
            friend.say(b"behind it")
        await asyncio.gather(*relay.tasks)
        relay.server.close()
        async with opened(Caller, door.address) as again:
            await again.echo(b"again")
        assert door.refused == {"handshake": 1}
        assert [parts for (parts,) in door.taken] == [b"before", b"again"]


@pytest.mark.parametrize("keys", [SERVER, None])
@on_loop
async def test_a_friend_who_sends_too_long_a_message_is_cut_off_and_may_come_again(keys):
    mine = FRIEND if keys else None
    async with opened(Door, "tcp://127.0.0.1:*", keys) as door, opened(Caller, door.address, mine) as friend:
        await friend.echo(LONGEST)
        assert friend.say(bytes(links.LONGEST_RECORDS + 1))
        # What is said before it knows is lost.
        await until(lambda: friend.heard or (friend.say(b"again") and False))
        assert {len(parts[0]) for parts in door.taken} == {len(LONGEST), 5}


@on_loop
async def test_with_no_known_key_nobody_is_let_in():
    async with opened(Door, "tcp://127.0.0.1:*", known=()) as door:
        await strange_link(door, FRIEND, SERVER.public)
        assert door.refused == {"unknown_key": 1}
        assert door.taken == []


@on_loop
async def test_memory_for_frames_fits_the_longest_message():
    assert len(allocate(links.LONGEST_REPLIES)) >= links.LONGEST_REPLIES


@on_loop
async def test_a_crowd_of_strangers_keeps_no_friend_waiting_while_the_loop_is_elsewhere():
    """What they cause waits to be counted; libzmq's one thread, which all links need, must not wait for that."""
    crowd = 3000
    async with opened(Door, "tcp://127.0.0.1:*") as door, opened(Caller, door.address) as caller:
        await caller.echo(b"before")
        for _ in range(crowd):
            with socket.create_connection(("127.0.0.1", door.port), timeout=20) as stranger:
                stranger.sendall(bytes(64))
        await caller.echo(b"after")
        await until(lambda: sum(door.refused.values()) == crowd)


# Links to shards


class Shards:
    """Links to shards by name; what comes back is kept."""

    def __init__(self):
        self.context = zmq.Context()
        self.sockets = LinkSockets(self.context, FRIEND, self.take)
        self.heard = []

    def take(self, name, frame, now):
        self.heard.append((name, bytes(frame)))

    def link(self, **doors):
        """Link to these doors and no others."""
        addresses = {name: (door.address, SERVER.public) for name, door in doors.items()}
        self.sockets.set_shards(addresses, {name: LinkState(name, 1, 1) for name in doors})

    async def echo(self, name, message):
        await until(lambda: self.sockets.send(name, message))
        await until(lambda: self.heard)
        assert self.heard.pop() == (name, message)

    def close(self):
        self.sockets.close()
        self.context.destroy(0)


@on_loop
async def test_shards_are_linked_by_name_as_they_come_and_go():
    async with (
        opened(Door, "tcp://127.0.0.1:*") as first,
        opened(Door, "tcp://127.0.0.1:*") as second,
        opened(Shards) as shards,
    ):
        shards.link(a=first)
        assert not shards.sockets.send("a", b"too early")
        shards.sockets.start(asyncio.get_running_loop())
        await shards.echo("a", b"one")
        shards.link(a=first, b=second)
        await shards.echo("b", b"two")
        kept, watched = shards.sockets.watched["b"], shards.sockets.watched["a"]
        shards.link(b=second)
        assert watched.sock.closed
        assert not shards.sockets.send("a", b"gone")
        assert shards.sockets.watched == {"b": kept}
        shards.link(a=second, b=second)  # at another place than before
        shards.sockets.send_all([("b", b"three"), ("nobody", b"four")])
        await until(lambda: shards.heard == [("b", b"three")])
        shards.heard.clear()
        await shards.echo("a", b"five")
        shards.link(a=first, b=second)
        await shards.echo("a", b"six")
        assert [parts for (parts,) in first.taken] == [b"one", b"six"]
        assert shards.sockets.watched["b"] is kept


@on_loop
async def test_who_is_silent_for_long_gets_another_socket():
    async with opened(Door, "tcp://127.0.0.1:*") as door, opened(Shards) as shards:
        shards.link(a=door, b=door)
        shards.sockets.start(asyncio.get_running_loop())
        await shards.echo("a", b"one")
        before = dict(shards.sockets.watched)
        shards.sockets.states["b"].heard = 99_999  # only b is heard
        for now in (0, RECONNECT_EVERY - 1):
            shards.sockets.tick(now)
            assert shards.sockets.watched == before
        shards.sockets.tick(RECONNECT_EVERY)
        assert shards.sockets.reconnections == 1
        assert before["a"].sock.closed
        assert shards.sockets.watched["b"] is before["b"]
        await shards.echo("a", b"two")


KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ({"link": "tcp://192.0.2.1:7101", "key": KEY}, ("tcp://192.0.2.1:7101", KEY.encode())),
        ({"link": "ipc:///run/shoal/shard1", "key": ""}, ("ipc:///run/shoal/shard1", b"")),
        ({"link": "tcp://192.0.2.1:7101"}, ("tcp://192.0.2.1:7101", b"")),
        ({"link": "tcp://192.0.2.1:7101", "key": "short"}, None),
        ({"link": "tcp://192.0.2.1:7101", "key": "#" * 40}, None),
        ({"link": "tcp://192.0.2.1", "key": KEY}, None),
        ({"link": "tcp://*:7101"}, None),
        ({"link": "inproc://x"}, None),
        ({"link": ["tcp://192.0.2.1:7101"]}, None),
        ({"link": "tcp://192.0.2.1:7101", "key": 5}, None),
        ({}, None),
    ],
)
def test_where_a_shard_says_that_it_is_must_be_an_address(place, wanted):
    assert links.read_address(place, keyed=False) == wanted


def test_where_keys_are_used_a_shard_must_say_its_own():
    place = {"link": "tcp://192.0.2.1:7101", "key": ""}
    assert links.read_address(place, keyed=True) is None
    assert links.read_address(place | {"key": KEY}, keyed=True) is not None
    assert links.read_address({"link": "ipc:///run/shoal/shard1", "key": ""}, keyed=True) is not None
