"""`shoal health`: asks the admin addresses of a node's processes, by HTTP, whether all is well."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cluster import start
from common.config_errors import ConfigError

if TYPE_CHECKING:
    from common.config import Config, Gateway, Shard
    from common.values import Endpoint

LONGEST = 1 << 24  # bytes of an answer


class SilentError(Exception):
    """An admin address gives no answer; the text says why."""


def check(config: Config, node: str | None, timeout: float) -> list[str]:
    """What is wrong with the processes of a node, a line each; nothing if all say that all is well.

    Raises ConfigError if there is no such node, or its processes have no admin addresses.
    """
    node = start.choose_node(config, node)
    processes = config.on_node(node)
    admins = [admin_of(config, process) for process in processes]
    if config.is_embedded:  # both are one process
        processes, admins = processes[:1], admins[:1]
    with ThreadPoolExecutor(len(processes)) as pool:
        found = [pool.submit(fault, *each, timeout) for each in zip(processes, admins, strict=True)]
        return [line for one in found if (line := one.result())]


def fault(process: Gateway | Shard, admin: Endpoint, timeout: float) -> str:
    """What is wrong with a process, in a line; empty if nothing is."""
    try:
        said = health(admin, timeout)
    except SilentError as error:
        return f"{process.name}: no health at {admin}: {error}"
    if process.name not in (said.get("gateway"), said.get("shard")):
        other = said.get("gateway") or said.get("shard") or "something else"
        return f"{process.name}: at {admin} is {other}"
    return "" if said.get("ok") is True else f"{process.name}: {unwell(said)}"


def unwell(said: dict[str, Any]) -> str:
    """What is wrong, by what a process says of its health."""
    failed = said.get("failed_tasks")
    parts = [f"tasks that fail: {', '.join(map(str, failed))}"] if failed and isinstance(failed, list) else []
    parts += [f"kernel faults: {said['kernel_faults']}"] if said.get("kernel_faults") else []
    silent = said.get("silent_shards")
    if silent and isinstance(silent, list):
        what = "hears no shard" if said.get("status") == "degraded" else "silent shards"
        parts.append(f"{what}: {', '.join(map(str, silent))}")
    return "; ".join(parts) or "it says that it is not well"


def admin_of(config: Config, process: Gateway | Shard) -> Endpoint:
    """A process's admin address. Raises ConfigError if it has none, or one that nobody knows."""
    admin = config.admin_of(process)
    if admin is None or admin.port == 0:
        found = "null, so no process can be asked" if admin is None else f"{admin}, whose port nobody knows"
        raise ConfigError("admin", "an address with port for every process", found)
    return admin


def health(admin: Endpoint, timeout: float) -> dict[str, Any]:
    """What /health says. Raises SilentError."""
    try:
        said = json.loads(get(admin, "/health", timeout))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise SilentError("the answer is not one of Shoal")
    return said


def get(admin: Endpoint, path: str, timeout: float) -> bytes:
    """A page of an admin address, whatever its status. Raises SilentError."""
    host = str(admin.address)
    if admin.address.is_unspecified:
        host = "127.0.0.1" if ip_address(host).version == 4 else "::1"
    connection = http.client.HTTPConnection(host, admin.port, timeout=timeout)  # no proxy, whatever the environment
    try:
        connection.request("GET", path)
        return connection.getresponse().read(LONGEST)
    except TimeoutError:
        raise SilentError(f"no answer in {timeout:g} s") from None
    except OSError as error:
        raise SilentError(error.strerror or str(error)) from None
    except http.client.HTTPException:
        raise SilentError("the answer is not HTTP") from None
    finally:
        connection.close()
