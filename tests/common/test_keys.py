import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common import keys
from common.keys import KeyFileError


@pytest.fixture
def made(tmp_path):
    keys.load_or_create(tmp_path)
    return tmp_path


def test_keys_are_made_once(tmp_path):
    data = tmp_path / "new" / "data"
    first = keys.load_or_create(data)
    assert keys.load_or_create(data) == first
    assert len(first.cluster) == len(first.connection_id.current) == 16
    assert first.cluster != first.connection_id.current
    assert first.connection_id.previous is None


def test_only_their_owner_may_read_them(tmp_path):
    data = tmp_path / "data"
    keys.load_or_create(data)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in data.iterdir()} == {
        "cluster.key": 0o600,
        "connection-id.key": 0o600,
    }


def test_processes_that_start_at_once_agree(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(keys.load_or_create, [tmp_path] * 32))
    assert len(found) == 1
    assert len(list(tmp_path.iterdir())) == 2  # no temporary files


def test_a_rotation_keeps_the_key_before(made):
    path = made / keys.CONNECTION_ID
    before = keys.load_connection_key(path)
    after = keys.rotate_connection_key(path, 1_700_000_000.9)
    assert keys.load_connection_key(path) == after
    assert (after.previous, after.rotated) == (before.current, 1_700_000_000)
    assert after.current != before.current
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_that_others_may_read_is_refused(made, mode):
    path = made / keys.CLUSTER
    path.chmod(mode)
    with pytest.raises(
        KeyFileError, match=f"cluster.key: others may read it .mode {mode:04o}.; expected 0600: chmod 600"
    ):
        keys.load_or_create(made)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\x00",
        b"shoal cluster key 2\nkey 00112233445566778899aabbccddeeff\n",
        b"shoal cluster key 1\n",
        b"shoal cluster key 1\nkey 0011\n",
        b"shoal cluster key 1\nkey zz112233445566778899aabbccddeeff\n",
        b"shoal cluster key 1\nkey 00112233445566778899aabbccddeeff\nkey 00112233445566778899aabbccddeeff\n",
        b"shoal connection-id key 1\ncurrent 00112233445566778899aabbccddeeff\nprevious none\nrotated 1\n",
    ],
)
def test_garbage_is_refused(made, text):
    path = made / keys.CLUSTER
    path.write_bytes(text)
    with pytest.raises(KeyFileError, match=r"cluster\.key: (not a key file|its )"):
        keys.load_or_create(made)


@pytest.mark.parametrize("rotated", ["", "-1", "1.5", "soon", "9" * 13])
def test_a_rotation_has_a_time(made, rotated):
    path = made / keys.CONNECTION_ID
    text = f"{keys.CONNECTION_ID_VERSION}\ncurrent {'00' * 16}\nprevious none\nrotated {rotated}\n"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=r"connection-id\.key"):
        keys.load_connection_key(path)


def test_a_directory_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="the directory of key files is a file"):
        keys.load_or_create(tmp_path / "file")
    with pytest.raises(KeyFileError, match="the directory of key files cannot be made"):
        keys.load_or_create(tmp_path / "file" / "data")
    with pytest.raises(KeyFileError, match="cluster.key: cannot be made"):
        keys.load_or_create(Path("/proc/self"))  # where nobody, not even root, makes a file


def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    if tmp_path.stat().st_uid == 0:
        keys.load_or_create(tmp_path)  # root's is as good as one's own
    else:
        with pytest.raises(KeyFileError, match="belongs to another user"):
            keys.load_or_create(tmp_path)
