import errno
import os

import pytest

from storage.disk_errors import disk_error
from storage.errors import InputError, TransientError


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN])
@pytest.mark.parametrize("doing", ["read", "write", "list"])
def test_a_disk_that_may_come_back_is_worth_another_try(tmp_path, code, doing):
    error = disk_error(OSError(code, os.strerror(code)), tmp_path / "x", doing)
    assert isinstance(error, TransientError)
    assert f"cannot {doing} {tmp_path / 'x'} ({os.strerror(code)})" in str(error)
    assert str(error).endswith("run the same command again")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "wanted 7 bytes"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "choose a root that this user can write to"),
        (errno.ENOTSUP, "with hard links"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ELOOP, "in a circle"),
        (errno.ENOLCK, "file system that has locks"),
        (errno.ENOENT, "choose another root"),
        (errno.EINVAL, "check the file system there"),
        (None, "check the file system there"),
    ],
)
def test_what_somebody_must_change_is_said(tmp_path, code, words):
    found = OSError("odd") if code is None else OSError(code, os.strerror(code))
    error = disk_error(found, tmp_path / "x", "write", wanted=7)
    assert isinstance(error, InputError)
    assert words in str(error)
