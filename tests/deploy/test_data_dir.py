import stat
import subprocess
import sys

import pytest

from deploy import data_dir
from deploy.data_dir import DataDirError


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_alone(tmp_path):
    home = tmp_path / "deep" / "data"
    with data_dir.claimed(home):
        assert mode(home) == 0o700
    with data_dir.claimed(home):  # free again
        pass


HOLDS = """
import sys, pathlib
from deploy import data_dir
with data_dir.claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_claim_names_the_process_that_holds_it(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "data")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(DataDirError, match=rf"process {holder.pid}\).*--data-dir"),
            data_dir.claimed(tmp_path / "data"),
        ):
            pass
        holder.kill()
        holder.wait(10)
        with data_dir.claimed(tmp_path / "data"):
            pass


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match="file/data cannot be used"), data_dir.claimed(tmp_path / "file" / "data"):
        pass


def test_the_stores_secret_is_made_once_for_its_owner_alone(tmp_path):
    secret = data_dir.store_secret(tmp_path)
    assert len(secret) == 64
    assert data_dir.store_secret(tmp_path) == secret
    assert (tmp_path / "store.secret").read_text().strip() == secret
    assert mode(tmp_path / "store.secret") == 0o600


def test_an_empty_secret_is_refused(tmp_path):
    (tmp_path / "store.secret").write_text("\n")
    with pytest.raises(DataDirError, match="is empty"):
        data_dir.store_secret(tmp_path)


def test_a_file_is_written_whole_and_never_over_another(tmp_path):
    assert data_dir.write_new(tmp_path / "a", b"one") is True
    assert data_dir.write_new(tmp_path / "a", b"two") is False
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataDirError, match="cannot be written"):
        data_dir.write_new(tmp_path / "none" / "a", b"")
