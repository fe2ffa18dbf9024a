"""One tracker for all tests, where clients may speak for other addresses; random hashes keep the tests apart."""

import os
from contextlib import ExitStack

import pytest
from http_client import HttpClient
from trackers import Client, Local, Process, announce_request

LISTEN = ("127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0")


@pytest.fixture(scope="session")
def tracker(tmp_path_factory):
    """A running `shoal up`."""
    directory = tmp_path_factory.mktemp("tracker")
    with Process(directory, listen=LISTEN, trust_ip_field=["127.0.0.0/8", "::1"]) as process:
        yield process


@pytest.fixture
def local(tmp_path):
    """Makes trackers in this process, with clocks of their own."""
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(Local(tmp_path, **more))


@pytest.fixture
def client_of():
    """Makes clients: client_of(address, source)."""
    with ExitStack() as stack:
        yield lambda address, source=None: stack.enter_context(Client(address, source))


@pytest.fixture
def client(tracker, client_of):
    return client_of(tracker.addresses[0])


@pytest.fixture
def client6(tracker, client_of):
    return client_of(tracker.addresses[2])


@pytest.fixture
def http_of():
    """Opens HTTP connections: http_of(address, source)."""
    with ExitStack() as stack:
        yield lambda address, source=None: stack.enter_context(HttpClient(address, source))


@pytest.fixture
def http(tracker, http_of):
    return http_of(tracker.addresses[0])


@pytest.fixture
def http6(tracker, http_of):
    return http_of(tracker.addresses[2])


@pytest.fixture
def swarm():
    """The info-hash of a torrent that nobody knows."""
    return os.urandom(20)


@pytest.fixture(scope="session")
def crowd(tracker):
    """The info-hash of a torrent with 300 public peers and 100 on IPv6, every other one a seeder."""
    info_hash = os.urandom(20)
    with Client(tracker.addresses[0]) as four, Client(tracker.addresses[2]) as six:
        four.announce_all(
            [announce_request(four.id, info_hash, left=n % 2, ip=f"8.8.{n // 200}.{n % 200}") for n in range(300)]
        )
        six.announce_all([announce_request(six.id, info_hash, left=n % 2, port=1000 + n) for n in range(100)])
    return info_hash
