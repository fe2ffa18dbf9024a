"""Machines of their own for tests, as root: namespaces for network, files, processes and names, joined by a switch.

    with Switch() as switch, Machine("vps1", ["192.0.2.1"], directory, switch) as machine:
        machine.run("hostname")
        with machine.network():  # this thread's sockets, and the processes that it starts, are on that machine
            Client(("192.0.2.1", 6969), "192.0.2.1")

Nothing of it has a name outside, and all ends with this process: each machine's first process waits for a pipe.
A machine has the files of this one, but for directories that an operator changes: what is written there is its own.
The checkout is in /opt/shoal too.
"""

import contextlib
import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trackers import PATIENCE

ROOT = Path(__file__).parents[1]
NEEDED = {"ip": "iproute2", "nft": "nftables", "dropbear": "dropbear-bin", "ssh": "openssh-client"}
CLONE_NEWNET = 0x40000000
READY = "ready"

# Its arguments: a directory, the checkout, then directories to shadow. Children that nobody waits for are reaped, as
# they are ignored.
BOOT = """
set -e
work=$1 checkout=$2
shift 2
ip link set lo up
hostname "$(basename "$work")"
mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/checkout"
mount --bind "$checkout" "$work/checkout"
cp -a /etc "$work/etc"
mount --bind "$work/etc" /etc
for directory in "$@"; do
    copy=$work/shadow$directory
    mkdir -p "$copy"
    for each in "$directory"/* "$directory"/.[!.]*; do
        if [ -L "$each" ]; then cp -P "$each" "$copy"
        elif [ -d "$each" ]; then mkdir -p "$copy/${each##*/}"; mount --rbind "$each" "$copy/${each##*/}"
        elif [ -f "$each" ]; then touch "$copy/${each##*/}"; mount --bind "$each" "$copy/${each##*/}"
        fi
    done
    mount --rbind "$copy" "$directory"
done
mkdir -p /root/.ssh /opt/shoal
mount -t tmpfs -o mode=700 tmpfs /root/.ssh
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
[ -e "$checkout/Makefile" ] || { mkdir -p "$checkout"; mount --bind "$work/checkout" "$checkout"; }
mount --bind "$work/checkout" /opt/shoal
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
trap '' CHLD
echo ready
exec cat
"""


def demand():
    """Fail unless machines can be made here."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: sudo make test", pytrace=False)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [package for command, package in NEEDED.items() if shutil.which(command, path=path) is None]
    if lacking:
        pytest.fail(f"missing; this installs it: sudo apt-get install -y {' '.join(lacking)}", pytrace=False)


class Namespace:
    """Namespaces that live as long as a process that waits for a pipe. `flags`: of unshare; `words`: what it runs."""

    def __init__(self, flags, words):
        self.process = subprocess.Popen(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", *flags, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.process.stdout.readline().strip() != READY:
            self.close()
            raise AssertionError("no machine could be made")
        pid = self.process.pid
        self.pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End it, and all processes in it."""
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    @contextlib.contextmanager
    def network(self):
        """Be in its network meanwhile: this thread, and the processes that it starts."""
        with open("/proc/thread-self/ns/net") as before:
            enter(f"/proc/{self.pid}/ns/net")
            try:
                yield
            finally:
                set_namespace(before.fileno())


class Switch(Namespace):
    """What machines are plugged into."""

    def __init__(self):
        super().__init__([], ["sh", "-c", f"echo {READY}; exec cat"])
        self.ip("link add switch type bridge forward_delay 0")
        self.ip("link set switch up")
        self.ports = {}  # by machine

    def ip(self, words):
        subprocess.run(["nsenter", "-t", str(self.pid), "--net", "ip", *words.split()], check=True)

    def plug(self, machine):
        """Give a machine a network card: eth0."""
        port = self.ports[machine] = f"port{len(self.ports)}"
        self.ip(f"link add {port} type veth peer name eth0 netns {machine.pid}")
        self.ip(f"link set {port} master switch up")

    @contextlib.contextmanager
    def cut_off(self, machine):
        """Let nothing reach a machine meanwhile."""
        self.ip(f"link set {self.ports[machine]} down")
        try:
            yield
        finally:
            self.ip(f"link set {self.ports[machine]} up")


class Machine(Namespace):
    """A machine with addresses of IPv4, all of which have all others as neighbours."""

    def __init__(self, name, addresses, directory, switch):
        self.name = name
        self.addresses = addresses
        work = directory / name
        work.mkdir()
        shadows = ["/opt", "/usr/local/bin", "/root", *closed_parents(ROOT)]
        words = ["sh", "-c", BOOT, "machine", str(work), str(ROOT), *dict.fromkeys(shadows)]
        super().__init__(["--mount", "--uts"], words)
        try:
            switch.plug(self)
            for address in addresses:
                self.run(f"ip address add {address}/32 dev eth0")
            self.run("ip link set eth0 up && ip route add default dev eth0")
        except BaseException:
            self.close()
            raise

    def command(self, script):
        """What runs a script there, by a shell that ends with the first failure."""
        enter_it = ["nsenter", "-t", str(self.pid), "--mount", "--net", "--uts", "--pid"]
        clean = [
            "env",
            "-i",
            "HOME=/root",
            "LANG=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        return [*enter_it, *clean, "bash", "-euc", f"cd /root\n{script}"]

    def run(self, script, check=True):
        """What a script prints; it is told if it fails."""
        ended = subprocess.run(self.command(script), capture_output=True, text=True, timeout=120)
        if check and ended.returncode != 0:
            raise AssertionError(f"{self.name}: {script}\n{ended.stdout}{ended.stderr}\nstatus {ended.returncode}")
        return ended.stdout + ended.stderr

    def write(self, path, text, mode=0o644):
        """A file there."""
        quoted = shlex.quote(path)
        subprocess.run(
            self.command(f'mkdir -p "$(dirname {quoted})"; cat >{quoted}; chmod {mode:o} {quoted}'),
            input=text,
            text=True,
            check=True,
            timeout=PATIENCE,
        )


def closed_parents(path):
    """The directories above a path that not everybody may enter."""
    return [str(parent) for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]


def enter(path):
    """Let this thread be in a namespace."""
    with open(path) as file:
        set_namespace(file.fileno())


def set_namespace(fd):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


# What an operator has already: machines that know each other by name and let root in, and systemd


def with_names(machines):
    """Let machines know each other's names."""
    hosts = "".join(f"{machine.addresses[0]} {machine.name}\n" for machine in machines)
    for machine in machines:
        machine.write("/etc/hosts", f"127.0.0.1 localhost\n{hosts}")


def with_ssh(machines):
    """Let root of each machine log in to the others, by keys."""
    machines[0].run("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    secret, public = (machines[0].run(f"cat /root/.ssh/id_ed25519{kind}") for kind in ("", ".pub"))
    for machine in machines:
        machine.write("/root/.ssh/id_ed25519", secret, 0o600)
        machine.write("/root/.ssh/authorized_keys", public, 0o600)
        machine.write("/root/.ssh/config", "StrictHostKeyChecking accept-new\nLogLevel ERROR\n")
        machine.run("mkdir -p /etc/dropbear; dropbear -R -P /run/dropbear.pid 2>/dev/null")


def with_systemctl(machine):
    """A systemctl that can start a unit; there is no systemd."""
    script = Path(__file__).with_name("fake_systemctl.py").read_text()
    machine.write("/usr/local/bin/systemctl", f"#!{os.path.realpath(sys.executable)} -I\n{script}", 0o755)
