"""`shoal up`, first half: all that can go wrong with what the operator wrote, then the supervisor takes over.

1. The configuration is read and checked, the keys are made or read, the sockets are opened.
2. This process becomes the supervisor: `exec`, same pid, sockets and encoded configuration inherited. What
   step 1 imported (YAML, msgspec, click) would else stay in memory for as long as the tracker runs.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

from cluster import supervisor
from common import config, keys, logs
from common.config import Config
from gateway import listening


def up(file: Path | None) -> NoReturn:
    """Become the supervisor of what the file says, or of the embedded default.

    Raises ConfigError, KeyFileError or ListenError before anything runs.
    """
    wanted = config.load(file) if file else default()
    logs.set_up(wanted.log.level, wanted.log.format)
    keys.load_or_create(wanted.data)
    listening.allow_files()
    sockets = listening.open_sockets(wanted, wanted.gateways[0])
    # A signal that comes during the exec waits for the supervisor.
    signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.WATCHED)
    become_supervisor([sock.detach() for sock in sockets], config_file(wanted), wanted)


def default() -> Config:
    """The configuration of who gives none, fit for this machine. Raises ConfigError."""
    wanted = config.read(None)
    return wanted if listening.has_ipv6() else listening.without_ipv6(wanted)


def config_file(wanted: Config) -> int:
    """A descriptor of an unnamed file that holds the encoded configuration."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("shoal-config")
    else:
        with TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.write(fd, config.encode(wanted))
    return fd


def become_supervisor(sockets: Sequence[int], config_fd: int, wanted: Config) -> NoReturn:
    for fd in (*sockets, config_fd):
        os.set_inheritable(fd, True)
    words = [",".join(map(str, sockets)), str(config_fd), wanted.log.level, wanted.log.format]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "cluster.supervisor", *words])
