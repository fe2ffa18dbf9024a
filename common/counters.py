"""What kernels count: the places of their counters, and what each is called in the metrics.

A kernel adds to an array of 64-bit words; `/metrics` reads the arrays. Names are label values.
"""

# Gateway: requests by kind.
CONNECTS, ANNOUNCES, SCRAPES = range(3)
# Gateway: answers by kind.
CONNECT_ANSWERS, ANNOUNCE_ANSWERS, SCRAPE_ANSWERS, ERROR_ANSWERS = range(3, 7)
# Gateway: refusals by reason.
(
    TOO_SHORT,
    NO_CONNECT,
    BAD_ID,
    UNKNOWN_ACTION,
    MALFORMED_ANNOUNCE,
    NO_HASHES,
    BAD_SOURCE,
    CONNECT_LIMIT,
    REQUEST_LIMIT,
    GATHER_FULL,
    GATHER_LATE,
    BAD_REPLY,
) = range(7, 19)
# Gateway: remarks.
URL_DATA, BAD_OPTIONS, ERRORS_HELD_BACK = range(19, 22)
GATEWAY = 22

REQUEST_KINDS = {"connect": CONNECTS, "announce": ANNOUNCES, "scrape": SCRAPES}
ANSWER_KINDS = {
    "connect": CONNECT_ANSWERS,
    "announce": ANNOUNCE_ANSWERS,
    "scrape": SCRAPE_ANSWERS,
    "error": ERROR_ANSWERS,
}
REFUSALS = {
    "too_short": TOO_SHORT,
    "no_connect": NO_CONNECT,
    "bad_connection_id": BAD_ID,
    "unknown_action": UNKNOWN_ACTION,
    "malformed_announce": MALFORMED_ANNOUNCE,
    "no_hashes": NO_HASHES,
    "bad_source": BAD_SOURCE,
    "connect_limit": CONNECT_LIMIT,
    "request_limit": REQUEST_LIMIT,
    "gather_full": GATHER_FULL,
    "gather_late": GATHER_LATE,
    "bad_reply": BAD_REPLY,
}

# HTTP codec: requests and answers by kind, remarks, then failures by fault (gateway/http_texts.py).
(
    HTTP_ANNOUNCES,
    HTTP_SCRAPES,
    HTTP_ANNOUNCE_ANSWERS,
    HTTP_SCRAPE_ANSWERS,
    HTTP_EMPTY_ANSWERS,
    HTTP_FORWARDED_IGNORED,
    HTTP_LATE_REPLY,
    HTTP_BAD_REPLY,
    HTTP_FAILURES,
) = range(9)
HTTP_FAULTS = (
    "bad_request",
    "long_target",
    "long_head",
    "bad_hash",
    "bad_peer_id",
    "bad_port",
    "too_many_parameters",
    "full_scrape",
    "request_limit",
    "overloaded",
    "late_scrape",
)
HTTP = HTTP_FAILURES + len(HTTP_FAULTS)

# Shard: what became of announces.
STORED, REFRESHED, STOPPED, SWARM_LIMIT, ENTRY_LIMIT, MEMORY, EXPIRED, COMPLETIONS, SHARD_SCRAPES = range(9)
SHARD = 9
ANNOUNCE_FATES = {
    "new": STORED,
    "known": REFRESHED,
    "stopped": STOPPED,
}
NOT_STORED = {
    "swarm_limit": SWARM_LIMIT,
    "entry_limit": ENTRY_LIMIT,
    "memory": MEMORY,
}
