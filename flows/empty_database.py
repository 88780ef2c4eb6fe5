"""An empty database of Prefect's, kept in the user's cache folder for the next private server.

To make one takes Prefect's server some four seconds: it walks through the migrations of years and
registers its blocks. What comes of that depends on Prefect's version alone, so it is done once a
version; a new server begins with a copy. Whatever is wrong with the kept one, the server makes
its own as ever.
"""

import contextlib
import gzip
import logging
import sqlite3
import zlib
from importlib.metadata import version
from pathlib import Path

from storage.files import temp_path, whole_file
from storage.paths import cache_folder

NAME = "prefect.db"
"""What Prefect calls its database in its home folder."""

_OWN_TABLES = frozenset(
    {"alembic_version", "block_schema", "block_schema_reference", "block_type", "sqlite_sequence"}
)
"""Tables that Prefect fills when it makes the database; rows of any other are somebody's."""

_BEGINNING = b"SQLite format 3\0"

_log = logging.getLogger(__name__)


def begin_with_empty(home: Path) -> bool:
    """Put a copy of the kept database into a home folder that has none.

    Returns:
        Whether there was one to copy. A database that is there already is left alone.
    """
    kept, wanted = _kept(), home / NAME
    if kept is None or wanted.exists():
        return False
    try:
        data = gzip.decompress(kept.read_bytes())  # its checksum tells what is damaged
    except FileNotFoundError:
        return False
    except (OSError, EOFError, zlib.error) as error:
        _log.info("%s cannot be read: %s", kept, error)
        return False
    if not data.startswith(_BEGINNING):
        _log.info("%s is no database", kept)
        return False
    temporary = temp_path(wanted)
    try:
        temporary.write_bytes(data)
        # unlike a rename, a link takes nobody's place: another server may have begun here
        wanted.hardlink_to(temporary)
    except OSError as error:
        _log.info("%s was not copied: %s", kept, error)
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def keep_empty(home: Path) -> None:
    """Keep a copy of a database that a server has just made, for the next one.

    One that holds more than Prefect's own rows is not kept. A failure costs time and nothing else.
    """
    kept = _kept()
    if kept is None or not (home / NAME).is_file():
        return
    copy = temp_path(home / NAME)
    try:
        place = f"{(home / NAME).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True)) as database:
            database.execute("VACUUM INTO ?", (str(copy),))
        if not _is_empty(copy):
            return
        data = gzip.compress(copy.read_bytes(), mtime=0)
        with whole_file(kept) as temporary:
            temporary.write_bytes(data)
    except (OSError, sqlite3.Error) as error:
        _log.info("%s was not written: %s", kept, error)
    finally:
        copy.unlink(missing_ok=True)


def forget_empty(home: Path) -> None:
    """Remove the kept database and the copy in a home folder: a server cannot work with them."""
    kept = _kept()
    places = [home / f"{NAME}{suffix}" for suffix in ("", "-wal", "-shm")]
    for place in places if kept is None else [kept, *places]:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


def _kept() -> Path | None:
    """The kept database of this version of Prefect; nothing where there is no cache folder."""
    folder = cache_folder()
    return None if folder is None else folder / f"prefect-{version('prefect')}.db.gz"


def _is_empty(database: Path) -> bool:
    """Whether a database holds what Prefect puts into every one, and nothing else."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        tables = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        filled = {
            name
            for (name,) in tables
            if opened.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()  # noqa: S608 - its own
        }
    return bool(filled) and filled <= _OWN_TABLES
