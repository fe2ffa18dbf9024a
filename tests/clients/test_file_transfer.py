"""Real clients carry a file from one to another, and know each other only through the tracker.

What each client can do is told in running.py; those pairs are tried that can connect on loopback addresses.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from clients.running import Aria2, Libtorrent, Transmission
from clients.torrents import make_torrent
from trackers import Client

SIZE = (4 << 20) + 12_345
PATIENCE = 60
AT_ONCE = 12  # Transmission decides every 10 s who gets something, so a transfer is mostly waiting

PAIRS = [  # those that take long first
    (Aria2, Transmission),
    (Transmission, Aria2),
    (Libtorrent, Transmission),
    (Transmission, Libtorrent),
    (Aria2, Aria2),
    (Libtorrent, Aria2),
    (Aria2, Libtorrent),
    (Libtorrent, Libtorrent),
]
LISTEN = {"ipv4": 0, "ipv6": 1}
TRANSFERS = [
    *(("udp", "ipv4", *pair) for pair in PAIRS),
    ("udp", "ipv6", Libtorrent, Libtorrent),
    *(("http", family, *pair) for family in LISTEN for pair in PAIRS),
]
NAMES = [f"{scheme}-{family}-{one.__name__}-{other.__name__}" for scheme, family, one, other in TRANSFERS]


@pytest.fixture(scope="module")
def transfers(request, tracker, tmp_path_factory):
    """The transfers of all tests that are to run, some at once."""
    wanted = [item.callspec.params["transfer"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {}
        for transfer in wanted:
            scheme, family, seeding, leeching = transfer
            address = tracker.addresses[LISTEN[family]]
            folder = tmp_path_factory.mktemp("transfer")
            running[transfer] = pool.submit(carry, scheme, address, folder, seeding, leeching)
        yield running
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("transfer", TRANSFERS, ids=NAMES)
def test_a_file_is_carried(transfers, transfer):
    transfers[transfer].result()


def carry(scheme, address, folder, seeding, leeching):
    """Let one client give a file to another, and see that the tracker counts what they do."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    torrent = make_torrent(f"{scheme}://{host}:{address[1]}/announce", "file.bin", os.urandom(SIZE))
    with ExitStack() as running:
        ask = running.enter_context(Client(address))
        seeder = running.enter_context(seeding(torrent, folder / "seeder", address[0]))
        leecher = running.enter_context(leeching(torrent, folder / "leecher", address[0]))

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
