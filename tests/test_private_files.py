"""What config.yaml is besides its text: who may read it, at every moment, whose it is, and under which names."""

from __future__ import annotations

import errno
import os
import resource
import stat
import struct
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from program import python, there
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from _typeshed import TraceFunction

OLD, NEW = "token: hunter2\n", "token: hunter2\nonnx: {}\n"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Return a private file, in a world in which new files are everybody's."""
    file = tmp_path / "config.yaml"
    file.write_text(OLD, encoding="utf-8")
    file.chmod(0o600)
    before = os.umask(0)
    yield file
    os.umask(before)


def replace(path: Path) -> Path:
    """Replace the file's text as a tune does, and return the copy of the old one."""
    backup = there(files.replace(path, path.read_bytes(), NEW))
    assert (path.read_text(encoding="utf-8"), backup.read_text(encoding="utf-8")) == (NEW, OLD)
    assert set(path.parent.iterdir()) >= {path, backup}
    assert not list(path.parent.glob(".*"))
    return backup


@pytest.mark.parametrize("names", [1, 2])
def test_nobody_else_can_read_it_at_any_moment(path: Path, names: int) -> None:
    """Before each line of the code that writes: neither the file nor its copy nor a half of either."""
    if names > 1:
        path.with_name("other.yaml").hardlink_to(path)
    seen = list[tuple[str, int]]()

    def look(frame: FrameType, _event: str, _argument: object) -> TraceFunction | None:
        if frame.f_code.co_filename == files.__file__:
            seen.extend((file.name, stat.S_IMODE(file.stat().st_mode)) for file in path.parent.iterdir())
            return look
        return None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        replace(path)
    finally:
        sys.settrace(before)
    assert {name.startswith(".config.yaml.") for name, _ in seen} == {True, False}
    assert any(".bak-" in name for name, _ in seen)
    assert {mode for _, mode in seen} == {0o600}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777])
def test_the_mode_stays(path: Path, mode: int) -> None:
    """The file's and its copy's, whatever the umask says."""
    path.chmod(mode)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (replace(path), path)] == [mode, mode]


def test_other_names_stay_names_of_the_same_file(path: Path) -> None:
    """What is read by a hard link is the new text; the copy is a file of its own."""
    other = path.with_name("other.yaml")
    other.hardlink_to(path)
    backup = replace(path)
    assert other.samefile(path)
    assert other.read_text(encoding="utf-8") == NEW
    assert not backup.samefile(path)


@pytest.mark.parametrize("longer", [OLD, OLD * 400])
def test_a_full_disk_leaves_a_file_with_other_names_as_it_was(path: Path, longer: str) -> None:
    """It is written where it lies, so what was there is put back; nothing is left beside it."""
    path.write_text(longer, encoding="utf-8")
    path.with_name("other.yaml").hardlink_to(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(longer) + 5, before[1]))
    try:
        with pytest.raises(UsageError, match=r"config\.yaml cannot be written: File too large"):
            files.replace(path, longer.encode(), longer + NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text(encoding="utf-8") == longer
    assert {file.name for file in path.parent.iterdir()} == {"config.yaml", "other.yaml"}


def _set(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip(f"this file system holds no {name}")


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """Return a POSIX access control list of (tag, permissions, id) as Linux keeps it."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


_NOBODY = 65534
_SHARED = _acl((1, 6, 0xFFFFFFFF), (2, 4, _NOBODY), (4, 0, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))


@pytest.mark.parametrize(("name", "value"), [("user.owner", b"ops"), ("system.posix_acl_access", _SHARED)])
def test_extended_attributes_stay(path: Path, name: str, value: bytes) -> None:
    """The file's and its copy's; access control lists are such attributes."""
    _set(path, name, value)
    for file in (replace(path), path):
        assert os.getxattr(file, name) == value


def test_a_folder_that_lets_others_read_its_new_files_changes_nothing(path: Path) -> None:
    """An access control list that new files inherit is taken off them."""
    path.chmod(0o640)
    _set(path.parent, "system.posix_acl_default", _SHARED)
    assert [os.listxattr(file) for file in (replace(path), path)] == [[], []]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_stays_where_root_writes(path: Path) -> None:
    """Of the file and of its copy."""
    os.chown(path, _NOBODY, _NOBODY)
    assert [(file.stat().st_uid, file.stat().st_gid) for file in (replace(path), path)] == [(_NOBODY, _NOBODY)] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_owner_stays_where_another_user_writes() -> None:
    """Who may write a file of somebody else's writes it where it lies; the copy is the writer's, and private."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(OLD, encoding="utf-8")
        path.chmod(0o666)
        path.parent.chmod(0o777)
        program = textwrap.dedent(f"""
            import os
            from pathlib import Path
            from rtmo_optuna.space import files
            os.setgid({_NOBODY}), os.setuid({_NOBODY})
            print(files.replace(Path({str(path)!r}), {OLD.encode()!r}, {NEW!r}))
        """)
        backup = Path(python(program).strip())
        about, copy = path.stat(), backup.stat()
        assert (about.st_uid, stat.S_IMODE(about.st_mode), path.read_text(encoding="utf-8")) == (0, 0o666, NEW)
        assert (copy.st_uid, stat.S_IMODE(copy.st_mode), backup.read_text(encoding="utf-8")) == (_NOBODY, 0o600, OLD)
