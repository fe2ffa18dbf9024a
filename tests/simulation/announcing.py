"""The clients of a simulated cluster: what they announce, what they were told, and what may never be told."""

import struct
from dataclasses import dataclass

from trackers import pack_name, parse_answer

from common import frames

AGAIN = 1000  # ms after which a client asks again
TRIES = 4
LATE = 5000  # ms past its lifetime for which a peer may still be listed
KNOWN = 10_000  # ms after which, without fault, every full answer has a peer
PORT = 6881


@dataclass
class Peer:
    """One peer of a torrent. Times in ms."""

    torrent: int
    number: int
    asked: int = -1  # when it last announced, at each try
    acknowledged: int = -1  # when the announce was sent that was answered last
    heard: int = -1  # when that answer came
    stopped: bool = False  # it has announced that it ends: it may be listed or not

    @property
    def source(self):
        return f"11.{self.torrent}.{self.number}.1", PORT


@dataclass
class Sent:
    """An announce under way."""

    peer: Peer
    gateway: str
    at: int
    what: dict
    tries: int = 0
    answered: bool = False


class Clients:
    """`lifetime`: of a peer, ms. `cluster`: has the gateways, and says whether there was a fault lately."""

    def __init__(self, world, cluster, torrents, peers, lifetime):
        self.world = world
        self.cluster = cluster
        self.lifetime = lifetime
        self.torrents = [bytes([torrent + 1]) * 20 for torrent in range(torrents)]
        self.peers = [[Peer(torrent, number) for number in range(peers)] for torrent in range(torrents)]
        self.sent = {}  # by transaction

    def announce(self, gateway, torrent, number, seeder=False, stop=False):
        """Let a peer announce, and ask again until it is answered."""
        peer = self.peers[torrent][number]
        if peer.stopped:
            return
        self.world.counts["announce"] += 1
        peer.stopped = stop
        what = {"left": 0 if seeder else 1, "want": 200, "event": frames.EVENT_STOPPED if stop else frames.EVENT_NONE}
        transaction = struct.pack(">I", len(self.sent) + 1)
        self.sent[transaction] = Sent(peer, gateway, self.world.now, what)
        self.go_on(transaction)

    def go_on(self, transaction):
        """The first try, or another."""
        sent = self.sent[transaction]
        if sent.answered or sent.tries == TRIES:
            self.world.counts["announce without answer"] += not sent.answered
            return
        self.world.counts["announce again"] += sent.tries > 0
        sent.tries += 1
        sent.at = self.world.now
        sent.peer.asked = self.world.now
        gateway = self.cluster.gateway(sent.gateway)
        if gateway is not None:
            gateway.ask(sent.peer.source, self.torrents[sent.peer.torrent], transaction, **sent.what)
        self.world.after(AGAIN, self.go_on, transaction)

    def answered(self, name, datagram):
        """An answer came to an address."""
        sent = self.sent.get(bytes(datagram[4:8]))
        if sent is None or pack_name(*sent.peer.source) != name or datagram[:4] != b"\0\0\0\1":
            self.world.broken("no reply to another client", f"{name.hex()} got {bytes(datagram).hex()}")
            return
        answer = parse_answer(datagram)
        self.check_peers(sent, answer)
        if answer.seeders + answer.leechers == 0:
            return  # it acknowledges nothing
        if not sent.answered:
            self.world.counts["acknowledged"] += 1
        sent.answered = True
        if not sent.peer.stopped:
            sent.peer.acknowledged = max(sent.peer.acknowledged, sent.at)
            sent.peer.heard = self.world.now
        self.check_whole(sent, answer)

    def check_peers(self, sent, answer):
        """Nobody but peers of this torrent, none long past its lifetime, and not who asks."""
        for host, port in answer.peers:
            kind, torrent, number, last = map(int, host.split("."))
            if (kind, torrent, last, port) != (11, sent.peer.torrent, 1, PORT) or number >= len(self.peers[torrent]):
                self.world.broken("no peer of another swarm", f"{host}:{port} in torrent {sent.peer.torrent}")
            elif number == sent.peer.number:
                self.world.broken("nobody is listed to himself", host)
            elif self.expired(self.peers[torrent][number]):
                self.world.broken("no peer is listed 5 s past its lifetime", f"{host} in torrent {torrent}")

    def expired(self, peer):
        past = self.world.now - peer.asked - self.lifetime
        return peer.asked < 0 or past > LATE + self.cluster.slack

    def check_whole(self, sent, answer):
        """Without fault a full answer lacks no peer that was acknowledged 10 s before."""
        may_lack = frames.SHORT_INTERVAL <= answer.interval < frames.SHORT_INTERVAL + frames.SHORT_INTERVALS
        if may_lack or sent.what["left"] == 0 or sent.peer.stopped or not self.cluster.is_calm():
            return
        self.world.counts["full answer without fault"] += 1
        listed = {host for host, _ in answer.peers}
        for peer in self.peers[sent.peer.torrent]:
            known = peer.heard >= self.cluster.bound and 0 <= peer.acknowledged <= self.world.now - KNOWN
            if known and self.is_alive(peer) and peer is not sent.peer and peer.source[0] not in listed:
                self.world.broken("a full answer lacks no peer", f"{peer} is not in {sorted(listed)} ({sent})")

    def is_alive(self, peer):
        """Whether a peer was acknowledged and must be stored still."""
        age = self.world.now - peer.acknowledged
        return peer.acknowledged >= 0 and not peer.stopped and age < self.lifetime - KNOWN

    def acknowledged_since(self, bound):
        """Who must be stored: (info-hash, endpoint) of all acknowledged by an announce that was sent after a time."""
        return {
            (self.torrents[peer.torrent], peer.source): peer
            for peers in self.peers
            for peer in peers
            if self.is_alive(peer) and peer.acknowledged >= bound
        }
