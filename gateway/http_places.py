"""Numbers of HTTP connections and their requests, which the kernels and the server share."""

# States of a place; connections.py says what they are.
FREE, READING, WAITING, ANSWERED, WRITING, DRAINING = range(6)

# Of an answer: what becomes of the connection after it; 0 to keep it.
CLOSE, DRAIN = 1, 2

# What a request asks for, in its ticket. DRAIN: there are bytes that nobody will read.
ASKS_CLOSE, ASKS_HEAD, ASKS_LIST, ASKS_DRAIN = 1, 2, 4, 8

HEAD = 8192  # bytes of a request's head at most
ROW = HEAD + 512  # bytes that are read at once
ROWS = 512  # of a batch
INPUT = 512 << 10  # bytes of a batch's rows
ANSWERS = 4096  # of a batch
ENOUGH = 2048  # answers after which no more requests are taken, nor late ones given up: replies want room too
ANSWER = 24_000  # bytes of an answer at most: 200 peers as dictionaries, or 100 scrapes
OUTPUT = 32 << 20  # bytes of a batch's answers
GATHERS = 256  # scrapes that wait for their parts
GATHER = 4096  # bytes of each

# Seconds
HEAD_TIME = 10  # in which a head must come
REPLY_TIME = 3  # in which a shard must answer
WRITE_TIME = 10  # in which a client must take its answer
DRAIN_TIME = 2  # in which it must close the connection after its last one
