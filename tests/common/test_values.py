from ipaddress import ip_address, ip_network

import pytest
import zmq

from common.values import Endpoint, LinkAddress, Name, Network, PublicKey, Seconds, Size, UnfitError, Word


class Nap(Seconds, least="1m", most="1h"):
    pass


class Crate(Size, least="1 MiB", most="1 GiB"):
    pass


class Colour(Word, words="red green"):
    pass


def test_an_endpoint_has_an_address_and_a_port():
    endpoint = Endpoint.read("[fe80::1%eth0]:80")
    assert (endpoint.address, endpoint.port) == (ip_address("fe80::1%eth0"), 80)
    assert Endpoint.read("10.0.0.1:0").port == 0


@pytest.mark.parametrize(
    "text",
    [
        "localhost:80",
        "10.0.0.1",
        ":80",
        "::1:80",
        "[::1]",
        "[10.0.0.1]:80",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "10.0.0.256:80",
        "239.1.1.1:80",
        "[ff02::1]:80",
        "[::ffff:10.0.0.1]:80",
        "10.0.0.1:80\n",
        "",
        80,
        None,
        ["10.0.0.1:80"],
    ],
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(UnfitError, match="an IP address and a port such as"):
        Endpoint.read(text)


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("10.0.0.1:80", "10.0.0.1:80", True),
        ("0.0.0.0:80", "10.0.0.1:80", True),
        ("[::]:80", "[2001:db8::1]:80", True),
        ("[::1]:80", "[0:0::1]:80", True),
        ("10.0.0.1:80", "10.0.0.2:80", False),
        ("10.0.0.1:80", "10.0.0.1:81", False),
        ("0.0.0.0:80", "[::]:80", False),
        ("0.0.0.0:0", "0.0.0.0:0", False),
    ],
)
def test_endpoints_clash_when_both_cannot_be_listened_on(one, other, clash):
    assert Endpoint(one).clashes(Endpoint(other)) is clash
    assert Endpoint(other).clashes(Endpoint(one)) is clash


def test_ports_follow_each_other():
    assert Endpoint("10.0.0.1:80").plus(0) == Endpoint("10.0.0.1:80")
    assert Endpoint("[2001:db8::1]:65530").plus(5) == Endpoint("[2001:db8::1]:65535")
    assert Endpoint("[fe80::1%eth0]:80").plus(1).port == 81
    with pytest.raises(ValueError, match="no such port"):
        Endpoint("10.0.0.1:65530").plus(6)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("tcp://192.0.2.1:7101", "192.0.2.1:7101"),
        ("tcp://[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ("tcp://0.0.0.0:1", "0.0.0.0:1"),
        ("ipc:///run/shoal/shard1", None),
        ("ipc:///" + "d" * 99, None),
        ("ipc:///" + "é" * 49, None),
    ],
)
def test_a_link_has_an_address_or_a_path(text, endpoint):
    address = LinkAddress.read(text)
    assert address == text
    assert address.endpoint == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.1:7101",
        "tcp://",
        "tcp://192.0.2.1",
        "tcp://vps1.example:7101",
        "tcp://*:7101",
        "tcp://192.0.2.1:0",
        "tcp://192.0.2.1:65536",
        "tcp://239.1.1.1:7101",
        "tcp://[::ffff:192.0.2.1]:7101",
        "tcp://192.0.2.1:7101/",
        "TCP://192.0.2.1:7101",
        "udp://192.0.2.1:7101",
        "inproc://shard1",
        "ipc://",
        "ipc://relative",
        "ipc://@abstract",
        "ipc:///run/",
        "ipc:///a\0b",
        "ipc:///" + "d" * 100,
        "ipc:///" + "é" * 50,
        "/run/shoal/shard1",
        "",
        7101,
        None,
        ["tcp://192.0.2.1:7101"],
    ],
)
def test_what_is_no_link_is_refused(text):
    with pytest.raises(UnfitError, match="(tcp://|an IP address)"):
        LinkAddress.read(text)


def test_a_public_key_is_z85():
    for key in (zmq.curve_keypair()[0].decode(), "0123456789" * 4, ".-:+=^!/*?&<>()[]{}@%$#" + "a" * 17):
        assert PublicKey.read(key) == key


@pytest.mark.parametrize("text", ["", "a" * 39, "a" * 41, "a" * 40 + "\n", "é" * 40, '"' * 40, " " * 40, 3, None])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(UnfitError, match="a public key of 40 characters, as `shoal keys` prints it"):
        PublicKey.read(text)


def test_a_network_is_parsed():
    assert Network.read("10.0.0.0/8").network == ip_network("10.0.0.0/8")
    assert Network.read("::1").network == ip_network("::1/128")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "everyone", "", 10, None])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(UnfitError, match="a network such as"):
        Network.read(text)


@pytest.mark.parametrize(("value", "seconds"), [(60, 60), ("1m", 60), ("1h", 3600)])
def test_a_quantity_may_be_a_number_or_text(value, seconds):
    assert Nap.read(value) == seconds


@pytest.mark.parametrize("value", [59, "61m", "soon", 90.0, True, None, "60"])
def test_a_quantity_has_bounds_and_a_unit(value):
    with pytest.raises(UnfitError, match="a duration from 1m to 1h"):
        Nap.read(value)


def test_quantities_print_as_people_write_them():
    assert (str(Nap(5400)), str(Crate(64 << 20))) == ("1h30m", "64 MiB")


def test_a_word_is_one_of_a_list():
    assert Colour.read("red") == "red"
    with pytest.raises(UnfitError, match="one of red, green"):
        Colour.read("blue")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 64, "é", 3, None])
def test_a_name_is_plain(name):
    assert Name.read("Shard_1.eu-west") == "Shard_1.eu-west"
    with pytest.raises(UnfitError, match="a name of"):
        Name.read(name)
