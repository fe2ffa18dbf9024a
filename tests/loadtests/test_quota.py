"""Quotas of processor time, by a real cgroup: this needs root, and cgroups that may be written."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtests.load import quota
from loadtests.load.quota import Place

VERSION_1 = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
VERSION_2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"

WAITS = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]


@contextmanager
def waiting():
    """A process that waits until it is let go."""
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def groups_of(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


def group_of(pid):
    """The directory of the group with a quota that a process is in."""
    found = [place.directory / name for place in quota.here() for name in names(pid)]
    return next(directory for directory in found if directory.is_dir())


def names(pid):
    return [line.rpartition("/")[2] for line in groups_of(pid).splitlines() if "shoal-load" in line]


def test_the_processor_of_version_1_is_found_before_version_2():
    own = "2:cpu,cpuacct:/\n0::/\n"
    directories = [Place(1, Path("/sys/fs/cgroup/cpu,cpuacct")), Place(2, Path("/sys/fs/cgroup/unified"))]
    assert quota.places(VERSION_1, own) == directories


def test_the_own_group_of_version_2_is_tried_after_the_root():
    root = Path("/sys/fs/cgroup")
    assert quota.places(VERSION_2, "0::/user.slice/a\n") == [Place(2, root), Place(2, root / "user.slice/a")]


def test_a_machine_without_cgroups_has_no_place():
    assert quota.places("proc /proc proc rw 0 0\n", "") == []


def test_a_quota_of_version_1_is_written_as_the_kernel_has_it(tmp_path):
    quota.write(1, tmp_path, 0.25)
    assert (tmp_path / "cpu.cfs_quota_us").read_text() == "2500"
    assert (tmp_path / "cpu.cfs_period_us").read_text() == "10000"


def test_a_quota_of_version_2_is_written_as_the_kernel_has_it(tmp_path):
    group = tmp_path / "group"
    group.mkdir()
    quota.write(2, group, 0.5)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (group / "cpu.max").read_text() == "5000 10000"


def test_a_process_is_in_a_group_with_the_quota_until_the_end():
    with waiting() as process:
        before = groups_of(process.pid)
        with quota.limited(lambda: [process.pid], 0.5) as share:
            group = group_of(process.pid)
            assert share == 0.5
            assert str(process.pid) in (group / "cgroup.procs").read_text().split()
            files = [group / "cpu.cfs_quota_us", group / "cpu.max"]
            assert {file.read_text().split()[0] for file in files if file.exists()} == {"5000"}
        assert groups_of(process.pid) == before
        assert not group.exists()


def test_a_process_that_has_ended_meanwhile_does_no_harm():
    with waiting() as process, waiting() as other:
        other.kill()
        other.wait()
        with quota.limited(lambda: [process.pid, other.pid], 0.5):
            assert names(process.pid)


def test_a_process_that_starts_while_others_are_moved_is_moved_too():
    with waiting() as first, waiting() as second:
        answers = iter([[first.pid], [first.pid, second.pid], [first.pid, second.pid]])
        with quota.limited(lambda: next(answers), 0.5):
            assert names(first.pid) == names(second.pid) != []


def test_the_group_goes_with_an_exception_too():
    with waiting() as process:
        with pytest.raises(KeyError), quota.limited(lambda: [process.pid], 0.5):
            group = group_of(process.pid)
            raise KeyError
        assert not group.exists()


def test_a_quota_that_nobody_may_give_is_refused_in_one_line():
    nowhere = Place(2, Path("/proc/self"))
    with pytest.raises(quota.QuotaError, match=r"needs root and cgroups .*\(/proc/self/shoal") as error:
        quota.make(0.5, [nowhere])
    assert "\n" not in str(error.value)
