"""Numbers of the arena's layout that several kernels share; peers.py and directories.py have the tables."""

HEAD = 14  # words in front of a swarm's first group
MOST = 63  # peers of a block

# Bits of a group's word 2.
KIND = 0x0F
LEECHERS = 0x10  # of a group that has parted
SEEDERS = 0x20
ROLES = 0x30

# Bits of a peer's word.
SECONDS = 0x3FFF
COMPLETED = 0x4000
PARTIAL = 0x8000

TOUCHED = 16  # records whose memory is asked for ahead
