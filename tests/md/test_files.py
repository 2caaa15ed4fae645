"""What is written to the disk, and its hash."""

import errno
import hashlib
import pickle

import pytest

from nequip_decorr.md.files import append, file_sha256, write_atomic


def test_the_hash_is_that_of_the_file(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("write", [write_atomic, append])
def test_an_error_names_the_file(tmp_path, write):
    """Also as it comes from a worker process."""
    path = tmp_path / "file"
    link = path if write is append else path.with_name("file.part")
    link.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        write(path, b"text")
    for error in (full.value, pickle.loads(pickle.dumps(full.value))):
        assert (error.errno, error.filename) == (errno.ENOSPC, str(path))


def test_append_tells_the_size(tmp_path):
    path = tmp_path / "file"
    assert [append(path, text) for text in (b"abc", b"", b"de")] == [3, 3, 5]
    assert path.read_bytes() == b"abcde"
