"""The frames between gateways and shards: every offset, size and kind, defined once.

Integers are little-endian unless the table says BE (those go out on the wire as they stand).

Frame header                          Record (a request, 96 bytes)
 0  2  format version                  0 48  ticket: opaque to the shard, echoed
 2  2  kind                           48  8  SipHash-2-4(cluster key, info-hash); its low bits are the slice
 4  4  count of records or replies    56 20  info-hash
 8  8  frame number                   76 16  address of the peer (IPv4 as ::ffff:a.b.c.d)
16  8  receiver's boot                92  2  port of the peer, BE
24  8  receiver's tick, ms            94  1  event (EVENT_*) in bits 0-2, then the flags of FLAG_*
                                      95  1  peers wanted, at most MAX_WANT

Reply to an announce (76 bytes, then the peers)     Reply to a scrape (76 bytes)
 0  4  length, these 4 bytes included                0  4  length
 4  1  status (STATUS_*)                             4  1  status
 5  1  bit 0: part (may lack peers); bit 1: IPv6     5  1  bit 0: part
 6  2  peers of the asker's family                   6  2  0
 8  2  peers of the other family                     8  4  partial seeds (BEP 21)
10  2  0
12  4  completed                                    12  4  completed
16 48  ticket                                       16 48  ticket
64  4  interval in seconds, BE                      64  4  seeders, BE
68  4  leechers, BE                                 68  4  completed, BE
72  4  seeders, BE                                  72  4  leechers, BE
76  .. peers of the asker's family, then the other's: 6 bytes each for IPv4, 18 for IPv6, as on the wire

A ticket ends in the action and transaction id of a UDP answer, so a UDP answer (BEP 15) is the
reply from byte 56 on, as it stands. Replies are packed and their lengths add up to the frame.

UDP ticket (48 bytes)                               Gather ticket (one hash of a longer scrape)
 0  2  listening socket                              0  2  TICKET_GATHER
 2  2  port of the client, BE                        2  2  index of the hash in the request
 4  4  IPv6 scope                                    4  4  place in the gather table
 8 16  address of the client                         8  8  generation of the place
24 16  address that was asked                       16 24  0
40  8  action and transaction id, BE                40  8  0

HTTP ticket (48 bytes)                              HTTP gather ticket (one hash of a scrape)
 0  2  TICKET_HTTP                                   0  2  TICKET_HTTP_GATHER
 2  2  options of the request                        2  2  index of the hash
 4  4  place of the connection                       4  4  place in the gather table
 8  8  boot of the gateway                           8  8  boot of the gateway
16  8  number of the request                        16  8  number of the request
24 16  address of the client                        24 24  0
40  8  0

PING and PONG, behind the header (which names no receiver)
32  8  boot of the sender                           76  1  what the sender is (ROLE_*)
40  8  its tick, ms                                 77  1  bit 0: stopping
48  8  version of its configuration                 78  2  length of its name
56  8  digest of its table of owners                80  8  PONG: number of the last RECORDS frame heard
64  8  digest of the cluster's key                  88  4  length of the states, 2 bits a slice (STATE_*)
72  4  count of slices                              92  4  length of the report, JSON
96 ..  name, states (PONG only), report

A PONG has the number of the PING that it answers. STATUS has no body, and asks for details of each slice if its count
is 1; its answer, STATUS too, has a JSON document.

PULL and SLICE, behind the header, which names the receiver's boot and tick; a SLICE has the number of its PULL
32  4  slice                                      36  4  0
40  8  the dump: boot of who gives                48  8  the dump: its count of changes when that began
56 32  cursor (shard/slice_store.py): where the chunk begins that is asked for; of a SLICE where the next one does
88 ..  SLICE: the chunk
A PULL from the start names the dump that was merged last, or none; a SLICE at the end that names the same says that
nothing is new. A PULL at the end confirms that all of the dump was merged, and has no answer.

Chunk of a slice: sections, each the peers of one swarm that lie together
 0 20  info-hash                                    then per peer 6 or 18 bytes of endpoint, then
20  2  bits 32..47 of the info-hash's SipHash       2  age in seconds, rounded up
22  1  kind of the peers (PUBLIC4 ...)              1  PEER_* bits
23  1  count of the peers
24  4  completed                          A swarm without peers: a section of count 0, in
                                          place of the kind the hours since it lost the last one
"""

VERSION = 1

# Kinds of frame.
RECORDS = 1
REPLIES = 2
PING = 3
PONG = 4
STATUS = 5
PULL = 6
SLICE = 7

HEADER = 32
RECORD = 96
TICKET = 48
REPLY = 76

# Offsets in a frame's header.
AT_KIND = 2
AT_COUNT = 4
AT_NUMBER = 8
AT_BOOT = 16
AT_TICK = 24

# Offsets in a record.
AT_HASH = 48
AT_INFO_HASH = 56
AT_ADDRESS = 76
AT_PORT = 92
AT_EVENT = 94
AT_WANT = 95

# Events: BEP 15's numbers; 4 is BEP 21's "paused".
EVENT_NONE = 0
EVENT_COMPLETED = 1
EVENT_STARTED = 2
EVENT_STOPPED = 3
EVENT_PAUSED = 4
EVENT_SCRAPE = 7
EVENT_MASK = 0x07

FLAG_SEEDER = 0x08  # left is zero
FLAG_NO_REPLY = 0x10  # a copy: store it, answer nothing
FLAG_BOTH_FAMILIES = 0x20
FLAG_IPV6 = 0x40
FLAG_EXEMPT = 0x80  # from a source that limits do not refuse

# Offsets in a reply.
AT_STATUS = 4
AT_PART = 5
AT_OWN_FAMILY = 6
AT_OTHER_FAMILY = 8
AT_PARTIAL_SEEDS = 8
AT_COMPLETED = 12
AT_TICKET = 16
AT_ANSWER = 56  # the ticket's action: from here on a reply is a UDP answer
AT_INTERVAL = 64
AT_PEERS = 76

# What became of the record.
STATUS_OK = 0
STATUS_NOT_STORED = 1  # answered, but a limit or the memory ceiling kept it from being stored

MAX_WANT = 200
MAX_SCRAPE = 100  # hashes of one scrape, whatever the protocol
MAX_UDP_SCRAPE = 74

# Tickets.
TICKET_GATHER = 0xFFFF
TICKET_HTTP = 0xFFFE
TICKET_HTTP_GATHER = 0xFFFD

# Who pings.
ROLE_OPERATOR, ROLE_GATEWAY, ROLE_SHARD = range(3)
ROLES = ("operator", "gateway", "shard")
IS_STOPPING = 0x01

# What a shard has of a slice, two bits each, the first slice in the lowest: the greater, the better.
STATE_NONE, STATE_PART, STATE_LEAVING, STATE_FULL = range(4)

# An interval for who should come back soon, but not all at once: seconds, drawn evenly.
SHORT_INTERVAL = 120
SHORT_INTERVALS = 181

# A chunk of a slice. Kinds of peers: PUBLIC, LOCAL (private and loopback), HIDDEN (never listed); +3 for IPv6.
SECTION = 28
PUBLIC4, LOCAL4, HIDDEN4, PUBLIC6, LOCAL6, HIDDEN6 = range(6)
PEER_SEEDER = 0x01
PEER_COMPLETED = 0x02
PEER_PARTIAL = 0x04
CHUNK = 32 << 10  # bytes at most: to load one takes about a millisecond
CURSOR = 32
