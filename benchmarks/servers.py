"""A PostgreSQL server of one's own: a cluster in a folder, on a Unix socket in it, run by nobody who matters."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_USERS = ("postgres", "nobody", "daemon")
_OPTIONS = "-c listen_addresses='' -c fsync=off -c unix_socket_directories={folder}"


def installed() -> Path | None:
    """Return the folder of the programs of this machine's newest PostgreSQL server, None where it has none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])
    on_path = shutil.which("initdb")
    return (
        Path(on_path).resolve().parent if on_path and (Path(on_path).resolve().parent / "postgres").exists() else None
    )


@contextlib.contextmanager
def running(programs: Path, whole: Path | None = None) -> Iterator[str]:
    """Run the server whose `programs` these are on a new cluster while the body runs; yield its database's URL.

    It refuses to be root, so that root's gives that up; what lies where only root may be sure to go is copied then: the
    folder `whole`, with all that the programs need.
    """
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder, drop = Path(name).resolve(), _dropped()
        if drop:
            os.chown(folder, drop["user"], drop["group"])
            if whole:
                programs = shutil.copytree(whole, folder / "server") / programs.relative_to(whole)
        cluster = folder / "cluster"

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", str(cluster), *arguments]
            done = subprocess.run(  # noqa: S603 - the programs that were found
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, **drop
            )
            assert done.returncode == 0, done.stderr

        call("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        log = ["-l", str(folder / "log.txt"), "-o", _OPTIONS.format(folder=folder)]
        call("pg_ctl", "start", "-w", "-t", "60", *log)
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            call("pg_ctl", "stop", "-w", "-t", "60", "-m", "immediate")


def _dropped() -> dict[str, Any]:
    """Return for `subprocess` whom to become: nothing, unless this is root."""
    if os.geteuid():
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = next(known[name] for name in _USERS if name in known)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
