"""The metadata of a committed offset."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import declaration
from schemas.declaration import Committed, UnreadableCommitError
from schemas.limits import RULES
from schemas.markers import Range


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_what_was_declared_is_read_again(offset: int, length: int) -> None:
    last = offset + length - 1
    committed = declaration.read(offset, declaration.write(last, RULES, 1_795_306_200_000))
    assert committed == Committed(offset, last, RULES, 1_795_306_200_000)
    assert committed.declared == (Range(offset, last) if length else None)


def test_the_metadata_is_written_as_the_protocol_says() -> None:
    assert json.loads(declaration.write(7, 1, 5)) == {"v": 1, "last": 7, "rules": 1, "t": 5}


def test_the_metadata_fits_into_kafkas_limit() -> None:
    assert len(declaration.write(2**63 - 1, 10**6, 2**53)) < 4096  # `offset.metadata.max.bytes`


def test_rules_of_a_newer_version_can_be_read_so_that_the_worker_can_refuse_them() -> None:
    assert declaration.read(0, declaration.write(5, RULES + 1, 0)).rules == RULES + 1


@pytest.mark.parametrize(
    "metadata",
    [
        "", "x", "{}", "null", '{"v":1}', '{"v":2,"last":5,"rules":1,"t":0}', '{"v":1,"last":"5","rules":1}',
        '{"v":1,"last":8,"rules":1}', "[]",
    ],
)  # fmt: skip
def test_foreign_or_newer_metadata_is_not_worked_on(metadata: str) -> None:
    with pytest.raises(UnreadableCommitError, match="offset 10"):
        declaration.read(10, metadata)
