"""Real clients carry a file from one to another, and know each other only through the tracker.

What each client can do is told in running.py; those pairs are tried that can connect on loopback addresses.
"""

import os
import time
from contextlib import ExitStack

import pytest
from clients.running import Aria2, Libtorrent, Transmission
from clients.torrents import make_torrent
from trackers import Client

SIZE = (4 << 20) + 12_345
PATIENCE = 45  # Transmission decides every 10 s who gets something

PAIRS = [
    (Aria2, Aria2),
    (Aria2, Libtorrent),
    (Aria2, Transmission),
    (Libtorrent, Aria2),
    (Libtorrent, Libtorrent),
    (Libtorrent, Transmission),
    (Transmission, Aria2),
    (Transmission, Libtorrent),
]
NAMES = [f"{seeding.__name__}-{leeching.__name__}" for seeding, leeching in PAIRS]


@pytest.mark.parametrize(("seeding", "leeching"), PAIRS, ids=NAMES)
def test_a_file_is_carried_over_ipv4(tracker, tmp_path, seeding, leeching):
    carry(tracker.addresses[0], tmp_path, seeding, leeching)


def test_a_file_is_carried_over_ipv6(tracker, tmp_path):
    carry(tracker.addresses[1], tmp_path, Libtorrent, Libtorrent)


def carry(address, folder, seeding, leeching):
    """Let one client give a file to another, and see that the tracker counts what they do."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    torrent = make_torrent(f"udp://{host}:{address[1]}/announce", "file.bin", os.urandom(SIZE))
    with ExitStack() as running:
        ask = running.enter_context(Client(address))
        seeder = running.enter_context(seeding(torrent, folder / "seeder", host))
        leecher = running.enter_context(leeching(torrent, folder / "leecher", host))

        def wait_for_counts(seeders, completed, leechers):
            wait_until(lambda: ask.scrape(torrent.info_hash) == [(seeders, completed, leechers)])

        # Who starts second hears of the first in its first answer, so must be one that connects.
        if leecher.connects:
            seeder.start(complete=True)
            wait_for_counts(1, 0, 0)
            leecher.start(complete=False)
        else:
            leecher.start(complete=False)
            wait_for_counts(0, 0, 1)
            seeder.start(complete=True)
        wait_until(leecher.has_file)
        wait_for_counts(2, 1, 0)
        leecher.stop()
        wait_for_counts(1, 1, 0)
        seeder.stop()
        wait_for_counts(0, 1, 0)


def wait_until(done):
    """Ask again and again, until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
