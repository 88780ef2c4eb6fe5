"""The kept empty database of Prefect's: copied, made again, and never trusted."""

import contextlib
import gzip
import sqlite3

import pytest

from flows.empty_database import NAME, begin_with_empty, forget_empty, keep_empty

OWN = "CREATE TABLE alembic_version (version TEXT); INSERT INTO alembic_version VALUES ('a');"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "magicseg"


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def make(home, script=OWN):
    with contextlib.closing(sqlite3.connect(home / NAME)) as database:
        database.executescript(script)


def tables(home):
    with contextlib.closing(sqlite3.connect(home / NAME)) as database:
        return [name for (name,) in database.execute("SELECT name FROM sqlite_master")]


def another(tmp_path):
    folder = tmp_path / "another"
    folder.mkdir()
    return folder


def test_what_is_kept_is_what_the_next_server_begins_with(home, cache, tmp_path):
    make(home, f"{OWN} CREATE TABLE flow_run (id TEXT);")
    keep_empty(home)
    assert len(list(cache.iterdir())) == 1
    new = another(tmp_path)
    assert begin_with_empty(new)
    assert tables(new) == ["alembic_version", "flow_run"]
    assert [path.name for path in new.iterdir()] == [NAME]
    assert [path.name for path in home.iterdir()] == [NAME]


def test_a_database_that_is_there_is_left_alone(home, tmp_path):
    make(home)
    keep_empty(home)
    new = another(tmp_path)
    make(new, "CREATE TABLE mine (id TEXT);")
    assert not begin_with_empty(new)
    assert tables(new) == ["mine"]


@pytest.mark.parametrize(
    "script",
    [
        f"{OWN} CREATE TABLE flow_run AS SELECT 'somebody''s' AS id;",
        f"{OWN} CREATE TABLE variable AS SELECT 'secret' AS value;",
        "CREATE TABLE alembic_version (version TEXT);",
    ],
    ids=["a run", "a variable", "not yet made"],
)
def test_nothing_of_anybody_and_nothing_half_made_is_kept(home, cache, script):
    make(home, script)
    keep_empty(home)
    assert not cache.exists()
    assert [path.name for path in home.iterdir()] == [NAME]


def test_a_database_elsewhere_is_not_looked_for_here(home, cache):
    keep_empty(home)  # as with PREFECT_API_DATABASE_CONNECTION_URL
    assert not cache.exists()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-9], lambda _: b"", lambda _: b"no gzip", lambda _: gzip.compress(b"text")],
)
def test_a_damaged_copy_is_as_good_as_none(home, cache, tmp_path, damage):
    make(home)
    keep_empty(home)
    (kept,) = cache.iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    new = another(tmp_path)
    assert not begin_with_empty(new)
    assert list(new.iterdir()) == []
    keep_empty(home)
    assert begin_with_empty(new)


def test_a_copy_that_no_server_can_work_with_is_forgotten(home, cache):
    make(home)
    keep_empty(home)
    (kept,) = cache.iterdir()
    kept.write_bytes(gzip.compress(b"SQLite format 3\0 and no more"))
    (home / NAME).unlink()
    assert begin_with_empty(home)
    keep_empty(home)  # refuses it, and says so in the log alone
    forget_empty(home)
    assert list(home.iterdir()) == []
    assert list(cache.iterdir()) == []


def test_without_a_place_to_keep_it_a_server_starts_as_ever(home, tmp_path, monkeypatch):
    make(home)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_empty(home)
    (home / NAME).unlink()
    assert not begin_with_empty(home)
    forget_empty(home)
    assert (tmp_path / "file").read_text() == "in the way"
