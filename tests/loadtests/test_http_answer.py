import pytest

from loadtests.load.http_answer import (
    Announced,
    Head,
    MalformedError,
    RefusedError,
    read_announce,
    read_head,
    read_scrape,
)

HASHES = [bytes([n]) * 20 for n in range(3)]
RIGHT = b"d8:completei2e10:incompletei3e8:intervali1800e5:peers6:abcdefe"


def scrape(*pairs):
    return b"d5:filesd%bee" % b"".join(b"20:%b%b" % pair for pair in pairs)


COUNTS = b"d8:completei1e10:downloadedi9e10:incompletei2ee"


def test_a_head_tells_status_length_and_whether_the_connection_ends():
    assert read_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12") == Head(200, 12, False)
    assert read_head(b"HTTP/1.0 404 Not Found\r\ncontent-length:0\r\nConnection: Close") == Head(404, 0, True)
    assert read_head(b"HTTP/1.1 200 \r\nContent-Type: text/plain\r\nContent-Length: 7\r\nVary: a:b") == Head(
        200, 7, False
    )
    assert read_head(b"HTTP/1.1 500\r\nContent-Length: 7") == Head(500, 7, False)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/2 200 OK\r\nContent-Length: 1",
        b"HTTP/1.1 20 OK\r\nContent-Length: 1",
        b"HTTP/1.1 999 OK\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length : 1",
        b"HTTP/1.1 200 OK\r\n Content-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nnonsense",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Encoding: gzip",
    ],
)
def test_a_head_that_is_none_is_malformed(head):
    with pytest.raises(MalformedError):
        read_head(head)


def test_an_announce_tells_counts_and_peers_of_both_families():
    assert read_announce(200, RIGHT) == Announced(2, 3, b"abcdef", b"")
    body = b"d8:completei0e10:incompletei0e8:intervali1e5:peers0:6:peers618:abcdefghijklmnopqre"
    assert read_announce(200, body) == Announced(0, 0, b"", b"abcdefghijklmnopqr")
    alone = body.replace(b"5:peers0:", b"")
    assert read_announce(200, alone) == Announced(0, 0, b"", b"abcdefghijklmnopqr")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"i1e",
        b"le",
        RIGHT[:-1],
        RIGHT + b"e",
        RIGHT.replace(b"8:completei2e", b""),
        RIGHT.replace(b"10:incompletei3e", b""),
        RIGHT.replace(b"8:intervali1800e", b""),
        RIGHT.replace(b"5:peers6:abcdef", b""),
        RIGHT.replace(b"i2e", b"i-2e"),
        RIGHT.replace(b"i2e", b"1:2"),
        RIGHT.replace(b"i1800e", b"i0e"),
        RIGHT.replace(b"6:abcdef", b"5:abcde"),
        RIGHT.replace(b"6:abcdef", b"le"),
        RIGHT.replace(b"6:abcdef", b"6:abcdef6:peers66:abcdef"),
        RIGHT.replace(b"8:complete", b"8:xomplete"),  # not in order
        RIGHT.replace(b"8:completei2e", b"8:completei2e8:completei2e"),
        RIGHT.replace(b"i2e", b"i02e"),
    ],
)
def test_an_announce_that_is_no_answer_is_malformed(body):
    with pytest.raises(MalformedError):
        read_announce(200, body)


@pytest.mark.parametrize("status", [201, 404, 500])
def test_another_status_makes_it_malformed(status):
    with pytest.raises(MalformedError):
        read_announce(status, RIGHT)
    with pytest.raises(MalformedError):
        read_scrape(status, scrape((HASHES[0], COUNTS)), HASHES)


@pytest.mark.parametrize("status", [200, 400])
def test_a_failure_reason_refuses_with_any_status(status):
    body = b"d14:failure reason2:noe"
    with pytest.raises(RefusedError):
        read_announce(status, body)
    with pytest.raises(RefusedError):
        read_scrape(status, body, HASHES)


def test_a_scrape_tells_counts_in_the_order_of_what_was_asked():
    other = COUNTS.replace(b"i1e", b"i7e")
    body = scrape((HASHES[0], COUNTS), (HASHES[2], other))
    assert read_scrape(200, body, [HASHES[2], HASHES[1], HASHES[0]]) == [(7, 2), (0, 0), (1, 2)]


@pytest.mark.parametrize(
    "body",
    [
        b"de",
        b"d5:filesle",
        b"d5:fileslee",
        scrape((HASHES[0], b"le")),
        scrape((HASHES[0], b"de")),
        scrape((HASHES[0], COUNTS.replace(b"10:downloadedi9e", b""))),
        scrape((HASHES[0], COUNTS.replace(b"i1e", b"i-1e"))),
        scrape((HASHES[0], COUNTS), (b"x" * 20, COUNTS)),  # nobody asked for that
    ],
)
def test_a_scrape_that_is_no_answer_is_malformed(body):
    with pytest.raises(MalformedError):
        read_scrape(200, body, HASHES)
