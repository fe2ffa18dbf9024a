"""`shoal check --here`: whether this machine, and who asks, can run a node of a configuration. Changes nothing.

`shoal up` finds the same out, one mistake at a time; this may be asked before, also while the tracker runs.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from cluster import privileges, start, taken_up
from common import keys
from common.config import Gateway
from common.config_errors import ConfigError
from common.keys import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cluster.worker import User
    from common.config import Config
    from common.values import Endpoint

BOTH = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
MENDED = {  # by an edit, or by other rights; a port that is taken may be our own tracker's
    errno.EACCES: "only root may listen there, or who has CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "it is no address of this machine",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
}


def faults(config: Config, node: str | None) -> list[str]:
    """What would keep this node from running here, a line each. Raises ConfigError if there is no such node."""
    node = start.choose_node(config, node)
    try:
        user = privileges.find_user(config)
        with privileges.acting_as(user):
            pass
    except ConfigError as error:
        return [str(error)]  # what else there is depends on the user
    return of_versions(config, node, user) + of_directories(config, node, user) + of_addresses(config, node, user)


def of_versions(config: Config, node: str, user: User | None) -> list[str]:
    """That the node has taken up a later configuration before, or another of the same version."""
    try:
        taken_up.check(config, node, user)  # gives what `shoal up` warns of
    except ConfigError as error:
        return [str(error)]
    return []


def of_directories(config: Config, node: str, user: User | None) -> list[str]:
    """Directories that whom workers run as could not use, key files that are missing or wrong."""
    directory = config.key_directory
    needed = {} if config.is_embedded else {config.data: "data"}
    if needed and os.path.lexists(config.run_directory):
        needed[config.run_directory] = "data"
    missing = [name for name in (keys.CLUSTER, keys.CONNECTION_ID) if not os.path.lexists(directory / name)]
    are_made = len(config.node_names()) == 1 and bool(missing)  # at the first start
    if are_made:
        needed.setdefault(directory, "keys")
    lines = [f"{place}: {wrong}" for path, place in needed.items() if (wrong := wrong_with(path, user))]
    return lines if are_made else lines + of_keys(config, node, user)


def wrong_with(directory: Path, user: User | None) -> str:
    """Why whom workers run as could not write there; nothing if they could, or if it can be made for them."""
    if not os.path.lexists(directory):
        there = next(parent for parent in directory.parents if os.path.lexists(parent))
        return "" if may(there, os.W_OK | os.X_OK) else f"{directory}: cannot be made, as {there} cannot be written"
    with privileges.acting_as(user):
        try:
            privileges.check_reach(directory, user)
        except KeyFileError as error:
            return str(error)
        who = f"{user.name}, whom workers run as," if user else "this user"
        return "" if may(directory, os.W_OK | os.X_OK) else f"{directory}: {who} cannot write there"


def of_keys(config: Config, node: str, user: User | None) -> list[str]:
    """What is wrong with key files that are not made here."""
    with privileges.acting_as(user):
        try:
            privileges.check_reach(config.key_directory, user)
            privileges.load_keys(config, node)
        except (ConfigError, KeyFileError) as error:
            return [f"keys: {error}"]
    return []


def may(path: Path, how: int) -> bool:
    """Whether the process, as whom it acts, may do that."""
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def of_addresses(config: Config, node: str, user: User | None) -> list[str]:
    """Addresses that could not be listened on, whoever has them at present."""
    lines = []
    for process in config.on_node(node):
        if isinstance(process, Gateway):  # their sockets are opened before workers become the user
            for endpoint in process.listen:
                lines += of_address(f"{process.name}: listen", endpoint, BOTH)
        with privileges.acting_as(user):
            if admin := config.admin_of(process):
                lines += of_address(f"{process.name}: admin", admin, BOTH[1:])
            link = None if isinstance(process, Gateway) else process.bind or process.link
            if link and link.endpoint:
                lines += of_address(f"{process.name}: link", link.endpoint, BOTH[1:])
    return lines


def of_address(place: str, endpoint: Endpoint, kinds: Sequence[socket.SocketKind]) -> list[str]:
    """What is wrong with an address, by trying."""
    is_ipv6 = endpoint.address.version == 6
    for kind in kinds:
        try:
            with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, kind) as sock:
                if is_ipv6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((str(endpoint.address), endpoint.port))
        except OSError as error:
            if error.errno in MENDED:
                return [f"{place}: {endpoint}: {MENDED[error.errno]}"]
    return []
