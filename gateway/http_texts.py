"""The texts of HTTP answers, and the answer to each fault of a request."""

from array import array

from common.counters import HTTP_FAULTS

# Faults, in the order of common/counters.py; CROWD has no counter of the codec's.
(
    BAD_REQUEST,
    LONG_TARGET,
    LONG_HEAD,
    BAD_HASH,
    BAD_PEER_ID,
    BAD_PORT,
    TOO_MANY,
    FULL_SCRAPE,
    RATE_LIMIT,
    OVERLOADED,
    LATE_SCRAPE,
    CROWD,
) = range(len(HTTP_FAULTS) + 1)
FAULTS = len(HTTP_FAULTS)

SOON = 300  # seconds after which those come again who are refused for the load

# What a client is told, and when it may try again: "never", or in minutes (BEP 31).
REASONS = {
    BAD_REQUEST: ("malformed request", "never"),
    LONG_TARGET: ("request target too long", "never"),
    LONG_HEAD: ("request head too large", "never"),
    BAD_HASH: ("invalid info_hash", "never"),
    BAD_PEER_ID: ("invalid peer_id", "never"),
    BAD_PORT: ("invalid port", "never"),
    TOO_MANY: ("too many parameters", "never"),
    FULL_SCRAPE: ("full scrape not allowed", "never"),
    RATE_LIMIT: ("too many requests", SOON // 60),
    OVERLOADED: ("overloaded", SOON // 60),
    LATE_SCRAPE: ("no answer in time", SOON // 60),
    CROWD: ("too many connections", SOON // 60),
}
STATUS = {
    BAD_REQUEST: "400 Bad Request",
    LONG_TARGET: "414 Request-URI Too Long",
    LONG_HEAD: "431 Request Header Fields Too Large",
}

(
    OK_KEEP,
    OK_CLOSE,
    COMPLETE,
    DOWNLOADED,
    EXTERNAL_4,
    EXTERNAL_6,
    INCOMPLETE,
    INTERVAL,
    MIN_INTERVAL,
    PEERS,
    PEERS_6,
    PEER_LIST,
    PEER_IP,
    PEER_PORT,
    FILES,
    FILE,
    FILE_DOWNLOADED,
    FILE_DOWNLOADERS,
    FILE_INCOMPLETE,
    FLAGS,
) = range(20)
_PARTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ",
    b"d8:completei",
    b"e10:downloadedi",
    b"e11:external ip4:",
    b"e11:external ip16:",
    b"10:incompletei",
    b"e8:intervali",
    b"e12:min intervali",
    b"e5:peers",
    b"6:peers6",
    b"e5:peersl",
    b"d2:ip",
    b"4:porti",
    b"d5:filesd",
    b"d8:completei",
    b"e10:downloadedi",
    b"e11:downloadersi",
    b"e10:incompletei",
    b"e5:flagsd20:min_request_intervali",
)
TEXTS = b"".join(_PARTS)
TEXT_AT = array("I", [sum(map(len, _PARTS[:at])) for at in range(len(_PARTS) + 1)])


def body(fault: int, interval: int) -> bytes:
    """The bencoded failure of a fault; `interval` is told for what need not be tried again soon."""
    reason, retry = REASONS[fault]
    seconds = interval if retry == "never" else SOON
    return b"d14:failure reason%d:%b8:intervali%de12:min intervali%de8:retry in%d:%be" % (
        len(reason),
        reason.encode(),
        seconds,
        seconds // 2 if retry == "never" else seconds,
        len(str(retry)),
        str(retry).encode(),
    )


def failure(fault: int, interval: int) -> bytes:
    """The answer to a fault: a body that goes out with status 200, or, if HTTP itself is at fault, all of it."""
    text = body(fault, interval)
    if fault not in STATUS and fault != CROWD:
        return text
    status = STATUS.get(fault, "200 OK")
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text
