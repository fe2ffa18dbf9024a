"""A small load for tests: clients that announce at a rate, whoever answers, and ask again as clients do.

    with Load(addresses, torrents) as load:
        ...  # a part fails
    assert load.failed() == []

Open loop: announces are sent when they are due, not when others are answered. One without its answer is sent again
after 1 s, three times (its own retransmission); with none a second after the last it has failed. Every answer is
checked. It runs in a thread of its own, from its beginning until the last announce is answered or has failed.
"""

import os
import selectors
import threading
import time
from collections import deque

from trackers import ANNOUNCE, Client, action_of, announce_request, parse_answer

RATE = 250  # announces a second
SOCKETS = 16  # gateways that share a port share out sources
TRIES = 4
AGAIN = 1.0
PEERS = 4  # ports of each torrent, so that each answer tells whether a peer is of another
FIRST_PORT = 20_000


class Sent:
    """One announce: how often it was sent, when first, the replies to it."""

    def __init__(self, client, address, torrent, place, hosts):
        self.client = client
        self.hosts = hosts
        self.address = address
        self.torrent = torrent
        self.ports = range(FIRST_PORT + PEERS * place, FIRST_PORT + PEERS * (place + 1))
        self.request = b""
        self.first = 0.0
        self.times = 0
        self.replies = []
        self.answered = None  # when first

    def __repr__(self):
        return f"<Sent to {self.address} at {self.first:.3f}, {self.times} times, {len(self.replies)} replies>"

    @property
    def took(self):
        return self.answered - self.first

    def lost(self):
        """How many of its datagrams got no reply."""
        return self.times - len(self.replies)

    def is_right(self, reply):
        """Whether a reply is the answer of a shard: it counts the asker, and lists none of another torrent."""
        answer = parse_answer(reply)
        known = all(host in self.hosts and port in self.ports for host, port in answer.peers)
        return known and answer.seeders == 0 and 1 <= answer.leechers <= PEERS * len(self.hosts)


class Load:
    """Announces at `addresses` in turn for `torrents` in turn, from `sources` (by default the first address)."""

    def __init__(self, addresses, torrents, rate=RATE, sources=()):
        self.sources = sources or [addresses[0][0]]
        self.clients = [Client(addresses[0], self.sources[place % len(self.sources)]) for place in range(SOCKETS)]
        self.addresses = addresses
        self.torrents = torrents
        self.rate = rate
        self.all = []
        self.by_transaction = {}
        self.wrong = []  # replies that are not right
        self.waiting = deque()  # (when it is sent again, announce): the first is due first
        self.over = threading.Event()
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        for client in self.clients:
            assert len(client.id) == 8
            client.socket.setblocking(False)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        for client in self.clients:
            client.socket.close()

    def wait(self, many):
        """Wait until so many more announces were sent."""
        wanted = len(self.all) + many
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.all) >= wanted or not self.thread.is_alive(), 60)
        assert self.thread.is_alive()

    def failed(self, of=None):
        """Announces without an answer."""
        return [sent for sent in self.chosen(of) if sent.answered is None]

    def lost(self, of=None, since=0):
        """Announces of which a datagram got no reply; without the first ones."""
        return [sent for sent in self.chosen(of)[since:] if sent.lost() > 0]

    def longest(self, of=None):
        """Seconds to the latest first answer."""
        return max(sent.took for sent in self.chosen(of) if sent.answered is not None)

    def chosen(self, of):
        return [sent for sent in self.all if of is None or sent.torrent in of]

    def tell(self, what, of=None):
        """Print what was seen."""
        many, lost = len(self.chosen(of)), len(self.lost(of))
        print(f"{what}: {many} announces, {lost} not answered each time, the last one after {self.longest(of):.2f} s")

    # In the thread

    def _run(self):
        with selectors.DefaultSelector() as selector:
            for client in self.clients:
                selector.register(client.socket, selectors.EVENT_READ)
            due = time.monotonic()
            while not self.over.is_set() or self.waiting:
                now = time.monotonic()
                while not self.over.is_set() and due <= now:
                    self._send_next()
                    due += 1 / self.rate
                while self.waiting and self.waiting[0][0] <= now:
                    self._again(self.waiting.popleft()[1])
                for key, _ in selector.select(max(0.0, min(due - time.monotonic(), 0.02))):
                    self._receive(key.fileobj)

    def _send_next(self):
        number = len(self.all)
        place = number // len(self.addresses) % len(self.torrents)
        client = self.clients[number % SOCKETS]
        sent = Sent(client, self.addresses[number % len(self.addresses)], self.torrents[place], place, self.sources)
        port = sent.ports[number * 7919 % PEERS]
        sent.request = announce_request(client.id, sent.torrent, port=port)
        sent.first = time.monotonic()
        self.by_transaction[sent.request[12:16]] = sent
        self._send(sent)
        with self.changed:
            self.all.append(sent)
            self.changed.notify_all()

    def _again(self, sent):
        if sent.lost() > 0 and sent.answered is None and sent.times < TRIES:
            self._send(sent)

    def _send(self, sent):
        sent.times += 1
        sent.client.socket.sendto(sent.request, sent.address)
        self.waiting.append((time.monotonic() + AGAIN, sent))

    def _receive(self, sock):
        try:
            while True:
                reply, address = sock.recvfrom(4096)
                sent = self.by_transaction[reply[4:8]]
                sent.replies.append(reply)
                if address != sent.address or action_of(reply) != ANNOUNCE or not sent.is_right(reply):
                    self.wrong.append((sent, reply))
                elif sent.answered is None:
                    sent.answered = time.monotonic()
        except BlockingIOError:
            return


def random_torrents(many):
    return [os.urandom(20) for _ in range(many)]
