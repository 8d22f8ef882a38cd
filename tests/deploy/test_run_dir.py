import os
import stat
import tempfile
from pathlib import Path

import pytest

from deploy import run_dir


@pytest.fixture
def base():
    # Shorter than pytest's own, as a socket's path must be.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_it_is_private_and_gone_afterwards(base):
    with run_dir.made(base) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "file").touch()
    assert list(base.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_start(base):
    left = Path(tempfile.mkdtemp(prefix=run_dir._PREFIX, dir=base))
    (left / "1.sock").touch()
    with run_dir.made(base) as folder:
        assert list(base.iterdir()) == [folder]


def test_what_is_in_use_stays(base):
    with run_dir.made(base) as first, run_dir.made(base) as second:
        assert {first, second} == set(base.iterdir())


def test_what_is_not_such_a_folder_stays(base):
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    (base / f"{run_dir._PREFIX}link").symlink_to(elsewhere)
    (base / f"{run_dir._PREFIX}file").touch()
    with run_dir.made(base):
        pass
    assert {path.name for path in base.iterdir()} == {
        "elsewhere",
        f"{run_dir._PREFIX}link",
        f"{run_dir._PREFIX}file",
    }


def test_the_folder_of_another_user_stays(base, monkeypatch):
    left = Path(tempfile.mkdtemp(prefix=run_dir._PREFIX, dir=base))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    run_dir._sweep(base)
    assert left.exists()


def test_a_folder_that_another_start_took_for_a_left_one_is_made_anew(base, monkeypatch):
    locked = run_dir._locked
    refusals = [None]
    monkeypatch.setattr(run_dir, "_locked", lambda folder: refusals.pop() if refusals else locked(folder))
    folder, lock = run_dir._make(base)
    os.close(lock)
    assert not refusals
    assert folder.exists()


def test_a_path_that_is_too_long_for_sockets_is_refused_and_leaves_nothing(base):
    deep = base / ("x" * 80)
    deep.mkdir()
    with pytest.raises(OSError, match="too long"), run_dir.made(deep):
        pass
    assert list(deep.iterdir()) == []


def test_a_folder_that_cannot_be_removed_is_said(base, monkeypatch, capsys):
    def refuse(_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(run_dir.shutil, "rmtree", refuse)
    with run_dir.made(base):
        pass
    assert "could not be removed" in capsys.readouterr().out


@pytest.mark.parametrize(("user", "in_memory"), [(0, True), (999, True), (1000, False)])
def test_only_users_whose_memory_files_survive_a_logout_keep_it_in_memory(user, in_memory, monkeypatch, base):
    memory = base / "shm"
    memory.mkdir()
    monkeypatch.setattr(run_dir, "_MEMORY", memory)
    assert run_dir._base(user) == (memory if in_memory else Path(tempfile.gettempdir()))


def test_without_a_folder_in_memory_temporary_files_it_is(monkeypatch, base):
    monkeypatch.setattr(run_dir, "_MEMORY", base / "missing")
    assert run_dir._base(0) == Path(tempfile.gettempdir())


def test_memory_serves_where_no_temporary_file_may_be_written(monkeypatch, base):
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(run_dir, "_MEMORY", base)
    assert run_dir._base(1000) == base
    monkeypatch.setattr(run_dir, "_MEMORY", base / "missing")
    with pytest.raises(FileNotFoundError):
        run_dir._base(1000)
