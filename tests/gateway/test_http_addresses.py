"""Addresses in text, as the codec reads them from a proxy's header."""

from ipaddress import IPv6Address, ip_address

import pytest
from http_bench import Bench, announce_head, kernels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from trackers import as_ipv6

from common.values import Network
from gateway.service import pack_networks

PROXY = "192.0.2.1"


@pytest.fixture(scope="module")
def read(kernel):
    """Reads a text: the address, or None."""
    bench = Bench(kernels_of(kernel), most=1)
    bench.sources.set_networks(b"", b"", pack_networks([Network(f"{PROXY}/32")]))

    def read(text):
        head = announce_head(lines=[b"X-Forwarded-For: " + text.encode("latin-1")])
        records, _, answers = bench.ask(head, PROXY)
        assert bool(records) != bool(answers)  # what is no address is refused
        return records[0][24:40] if records else None

    return read


GOOD = """
1.2.3.4 0.0.0.0 255.255.255.255
:: ::1 1:: 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1::8 1:2::7:8 abcd:EF01::
::1.2.3.4 ::ffff:1.2.3.4 64:ff9b::1.2.3.4 1:2:3:4:5:6:1.2.3.4
0001:0002:0003:0004:0005:0006:0007:0008 0000:0000:0000:0000:0000:ffff:255.255.255.254
"""
BAD = """
. : ::: 1 1.2.3 1.2.3. .1.2.3 1.2.3.4. 1.2.3.4.5 1..3.4 256.1.1.1 1.2.3.999 0001.2.3.4
1.2.3.x -1.2.3.4 1.2.3.4/8 a.b.c.d localhost None unknown _hidden
1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 1::2::3 ::1:: :1:2:3:4:5:6:7:8 1:2:3:4:5:6:7: 1:2:3:4:5:6:7:8:: 12345:: g:: ::g
1:2:3:4:5:6:7:1.2.3.4 ::1.2.3 ::1.2.3.4.5 1.2.3.4:: ::1.2.3.4:5 fe80::1%eth0
[ [] [::1 [1.2.3.4] [[::1]] ::1]
"""


@pytest.mark.parametrize("text", GOOD.split())
def test_addresses(read, text):
    for written in (text, f" \t{text}\t ", f"[{text}]" if ":" in text else f"{text}:80", text.upper()):
        assert read(written) == as_ipv6(str(ip_address(text)))
    assert read(f"[{text}]:6881") == (as_ipv6(text) if ":" in text else None)


def test_leading_zeros_are_decimal(read):
    assert read("001.010.8.099") == as_ipv6("1.10.8.99")


@pytest.mark.parametrize("text", [*BAD.split(), "", " ", "1.2.3.4 5", "::" + "0" * 50, "1::" + "2:" * 20])
def test_what_is_none(read, text):
    assert read(text) is None


def test_all_ways_to_write_ipv6(read):
    @settings(max_examples=200, deadline=None, database=None)
    @given(st.lists(st.just(0) | st.integers(0, 0xFFFF), min_size=8, max_size=8), st.data())
    def check(groups, data):
        address = IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
        dotted = ":".join(f"{group:x}" for group in groups[:6]) + f":{ip_address(address.packed[12:])}"
        text = data.draw(st.sampled_from([address.compressed, address.exploded, dotted]))
        assert read(data.draw(st.sampled_from([text, text.upper(), f"[{text}]", f"[{text}]:1"]))) == address.packed

    check()
