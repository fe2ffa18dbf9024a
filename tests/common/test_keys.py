import os
import pwd
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from common import config, keys
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
    (tmp_path / "ours").mkdir()
    owner = (tmp_path / "ours").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        keys.load_or_create(tmp_path / "ours")  # root's is as good as one's own
        os.chown(tmp_path / "ours", 2, -1)
    for use in (keys.load_or_create, lambda directory: keys.make_node_key(directory, "n")):
        with pytest.raises(KeyFileError, match="belongs to another user"):
            use(tmp_path / "ours")


def test_root_may_use_the_directory_of_anybody(made, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if made.stat().st_uid == 0:
        os.chown(made, 2, -1)
    keys.load(made)


def test_a_rotation_that_cannot_be_written_is_refused(made):
    path = made / ("n" * 250)  # which leaves no room for a temporary name
    (made / keys.CONNECTION_ID).rename(path)
    before = path.read_text()
    with pytest.raises(KeyFileError, match="cannot be written: File name too long"):
        keys.rotate_connection_key(path, 1)
    assert path.read_text() == before


def test_only_a_cluster_of_several_nodes_needs_its_keys_made(tmp_path):
    one = config.read({"keys": str(tmp_path / "one"), "nodes": [{"name": "n"}]})
    assert keys.of_cluster(one) == keys.load(tmp_path / "one")
    two = of_nodes(tmp_path / "two", n=None, m=None)
    with pytest.raises(KeyFileError, match="cluster.key: there is no such file"):
        keys.of_cluster(two)
    assert not (tmp_path / "two").exists()


def test_a_shard_needs_the_cluster_key_alone(tmp_path):
    one = config.read({"keys": str(tmp_path / "one"), "nodes": [{"name": "n"}]})
    assert keys.cluster_key(one) == keys.load(tmp_path / "one").cluster
    two = of_nodes(tmp_path / "two", n=None, m=None)
    with pytest.raises(KeyFileError, match="cluster.key: there is no such file: copy it"):
        keys.cluster_key(two)
    assert not (tmp_path / "two").exists()
    keys.make(tmp_path / "two")
    (tmp_path / "two" / keys.CONNECTION_ID).unlink()
    key = keys.load_cluster_key(tmp_path / "two" / keys.CLUSTER)
    assert keys.cluster_key(two) == keys.load_cluster(tmp_path / "two") == key
    with pytest.raises(KeyFileError, match="connection-id.key: there is no such file"):
        keys.of_cluster(two)


def test_a_cluster_waits_for_its_keys(made):
    assert keys.load(made) == keys.load_or_create(made)
    for name in (keys.CONNECTION_ID, keys.CLUSTER):
        (made / name).unlink()
        with pytest.raises(KeyFileError, match=f"{name}: there is no such file: .* shoal keys make --config FILE"):
            keys.load(made)
        assert not (made / name).exists()
    with pytest.raises(KeyFileError, match="cluster.key: there is no such file"):
        keys.load(made / "nowhere")
    (made / "file").write_text("")
    with pytest.raises(KeyFileError, match="cluster.key: cannot be read: Not a directory"):
        keys.load(made / "file")


def test_what_is_made_is_told(tmp_path):
    assert [path.name for path in keys.make(tmp_path)] == [keys.CLUSTER, keys.CONNECTION_ID]
    (tmp_path / keys.CONNECTION_ID).unlink()
    assert [path.name for path in keys.make(tmp_path)] == [keys.CONNECTION_ID]
    assert keys.make(tmp_path) == []


def test_a_node_has_a_pair_of_keys_once(tmp_path):
    made = keys.make_node_key(tmp_path / "new", "vps1.example")
    path = tmp_path / "new/vps1.example.key"
    assert keys.node_path(tmp_path / "new", "vps1.example") == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert zmq.curve_public(made.secret.encode()).decode() == made.public
    assert keys.make_node_key(tmp_path / "new", "vps1.example") == made
    assert keys.load_node_key(tmp_path / "new", "vps1.example") == made
    assert keys.make_node_key(tmp_path / "new", "vps2").secret != made.secret


def test_a_secret_is_not_shown(tmp_path):
    key = keys.make_node_key(tmp_path, "n")
    assert key.public in repr(key)
    assert key.secret not in repr(key)


A, B = ([key.decode() for key in zmq.curve_keypair()] for _ in range(2))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"public {A[0]}\nsecret {B[1]}", "its public key is not that of its secret"),
        (f"public {A[1]}\nsecret {A[0]}", "its public key is not that of its secret"),
        (f"public {A[0]}\nsecret {A[1][:-1]}", "its secret is not 40 characters of Z85"),
        (f"public {A[0]}\nsecret {A[1]}aaaaa", "its secret is not 40 characters of Z85"),
        (f"public {A[0]}\nsecret {'~' * 40}", "its secret is not 40 characters of Z85"),
        (f"public {A[0]}\nsecret {'#' * 40}", "its secret is not 40 characters of Z85"),
        (f"public {A[0]}\nsecret ", "its secret is not 40 characters of Z85"),
        (f"public {A[0]}", "its lines are not public, secret"),
        (f"public {A[0]}\nsecret {A[1]}\nsecret {A[1]}", "its lines are not public, secret"),
    ],
    ids=["another secret", "exchanged", "short", "long", "tildes", "hashes", "empty", "no secret", "two secrets"],
)
def test_keys_of_a_node_are_a_pair(tmp_path, text, reason):
    path = keys.node_path(tmp_path, "n")
    path.write_text(f"{keys.NODE_VERSION}\n{text}\n")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=f"n.key: {reason}") as caught:
        keys.load_node_key(tmp_path, "n")
    assert A[1] not in str(caught.value)
    with pytest.raises(KeyFileError, match=reason):
        keys.make_node_key(tmp_path, "n")
    assert path.read_text() == f"{keys.NODE_VERSION}\n{text}\n"


def test_another_file_is_no_node_key(made):
    os.rename(made / keys.CLUSTER, keys.node_path(made, "n"))
    with pytest.raises(KeyFileError, match="its first line is not 'shoal node key 1'"):
        keys.load_node_key(made, "n")


def test_a_node_secret_that_others_may_read_is_refused(tmp_path):
    keys.make_node_key(tmp_path, "n")
    keys.node_path(tmp_path, "n").chmod(0o640)
    with pytest.raises(KeyFileError, match="n.key: others may read it .mode 0640."):
        keys.load_node_key(tmp_path, "n")


def of_nodes(directory, **public):
    nodes = [{"name": name, "key": key} for name, key in public.items()]
    placed = {"gateways": [{"name": "g", "node": "n"}], "shards": [{"name": "s", "node": "n"}]}
    return config.read({"keys": str(directory), "nodes": nodes, **placed})


def test_a_node_has_the_keys_of_the_configuration(tmp_path):
    key = keys.make_node_key(tmp_path, "n")
    assert keys.node_key(of_nodes(tmp_path, n=key.public), "n") == key
    assert keys.node_key(of_nodes(tmp_path, n=None), "n") is None


def test_another_public_key_in_the_configuration_is_refused(tmp_path):
    one, two = (keys.make_node_key(tmp_path, name) for name in ("n", "m"))
    swapped = of_nodes(tmp_path, n=two.public, m=one.public)
    with pytest.raises(KeyFileError, match="n.key: the configuration has another public key for n than this") as caught:
        keys.node_key(swapped, "n")
    assert str(caught.value).endswith(one.public)


def test_a_missing_secret_is_told_with_what_makes_it(tmp_path):
    with pytest.raises(KeyFileError, match="n.key: there is no such file: .*: shoal keys make --config FILE --node n"):
        keys.node_key(of_nodes(tmp_path, n=A[0]), "n")
    assert list(tmp_path.iterdir()) == []


def test_digests_tell_clusters_apart():
    one, other = (keys.cluster_digest(bytes([at]) * 16) for at in range(2))
    assert one != other
    assert keys.cluster_digest(bytes(16)) == one
    assert 0 <= one < 1 << 64


OTHER = "root" if os.geteuid() else "nobody"


def as_root(code, *arguments):
    """Run code as root; in a user namespace, which has no other user, if pytest is not."""
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    if os.geteuid() != 0:
        command = ["unshare", "--map-root-user", *command]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_root_gives_files_to_the_user_who_needs_them(tmp_path):
    code = """
import sys
from pathlib import Path
from common import keys
directory, user = Path(sys.argv[1]), sys.argv[2]
keys.make(directory, user)
keys.make_node_key(directory, "n", user)
keys.rotate_connection_key(directory / keys.CONNECTION_ID, 1)
print(*{path.stat().st_uid for path in (directory, *directory.iterdir())})
"""
    assert as_root(code, tmp_path / "keys", OTHER).split() == [str(pwd.getpwnam(OTHER).pw_uid)]


def test_a_user_whom_the_machine_lacks_is_told(tmp_path):
    code = """
import sys
from pathlib import Path
from common import keys
try:
    keys.make(Path(sys.argv[1]), "no.such.user")
except keys.KeyFileError as error:
    print(error)
"""
    assert as_root(code, tmp_path / "keys") == (
        "user: expected a user of this machine, to whom key files belong, found 'no.such.user'\n"
    )
    assert not (tmp_path / "keys").exists()


def test_reading_keys_loads_no_zeromq():
    code = "import common.keys, sys; print('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True).stdout == "False\n"
