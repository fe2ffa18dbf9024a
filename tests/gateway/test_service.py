"""A gateway without a loop. How it answers is tested in tests/conformance."""

import socket

import pytest
from trackers import announce_request, as_ipv6, pack_name, put

from common import frames, keys
from common.config import Config
from common.values import Network
from gateway.service import GatewayService, Told, pack_networks


class Queue:
    """A codec that has so many datagrams to send, all of them to nowhere."""

    def __init__(self, many):
        self.many = many

    def take_pending(self, _):
        return self.many


def test_networks_are_packed_for_the_codec():
    mapped = bytes(10) + b"\xff\xff"
    assert pack_networks([]) == b""
    assert pack_networks([Network("10.0.0.0/8"), Network("2001:db8::/32"), Network("::1")]) == (
        mapped + b"\x0a\0\0\0" + b"\xff" * 12 + b"\xff\0\0\0"
        b"\x20\x01\x0d\xb8" + bytes(12) + b"\xff" * 4 + bytes(12) + bytes(15) + b"\1" + b"\xff" * 16
    )  # fmt: skip


@pytest.fixture
def gateway(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield GatewayService(Config(data=tmp_path), [sock], lambda _: [], 1, Told(dict, lambda: True))


def test_its_socket_never_waits(gateway):
    assert not gateway.udp.sockets[0].getblocking()
    gateway.udp.on_readable(0)  # nothing is there
    assert gateway.udp.batch_sizes.total == 0


def test_answers_that_cannot_be_sent_are_counted(gateway, tmp_path):
    gateway.udp.codec = Queue(3)
    gateway.udp.flush()  # to address 0, port 0
    assert gateway.udp.unsent == 3


def slice_of(gateway, info_hash):
    """The SipHash of the record that an announce becomes."""
    codec, batch = gateway.codec, gateway.udp.batch
    connection_id = codec.connection_id(as_ipv6("127.0.0.1"), 0)
    put(batch, 0, announce_request(connection_id, info_hash), pack_name("127.0.0.1", 5000))
    codec.decode(0, 0, 1, 0, 0)
    gateway.records.close(0, 0, 0, 0)
    return bytes(gateway.records.view[frames.HEADER + frames.AT_HASH :][:8])


def test_the_cluster_key_is_read_once(gateway, tmp_path):
    before = slice_of(gateway, bytes(20))
    (tmp_path / keys.CLUSTER).unlink()
    gateway.reload_keys()
    assert slice_of(gateway, bytes(20)) == before
    assert not (tmp_path / keys.CLUSTER).exists()


def test_a_key_file_that_was_lost_changes_nothing(gateway, tmp_path, caplog):
    gateway.tick()
    before = gateway.codec.connection_id(bytes(16), 0)
    (tmp_path / keys.CONNECTION_ID).unlink()
    for _ in range(3):
        gateway.tick()
    assert gateway.codec.connection_id(bytes(16), 0) == before
    assert caplog.text.count("the connection-id key is not taken up") == 1
