from ipaddress import ip_address, ip_network

import pytest

from common.values import Endpoint, Name, Network, Seconds, Size, UnfitError, Word


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
