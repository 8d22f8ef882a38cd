"""What stands in the metadata of a committed offset: the batch that a worker is about to store.

`offset` is the first position of the batch, and `last` its last one. `last` = `offset` - 1 declares nothing: it only
acknowledges all that came before (EXACTLY_ONCE.md, 1.2).
"""

import msgspec

from schemas.markers import Range

VERSION = 1


class Declaration(msgspec.Struct, frozen=True):
    """The JSON in the committed offset's metadata.

    Attributes:
        last: last position of the declared range.
        rules: the version of the rules that give the rows (`schemas.limits.RULES`).
        t: when it was declared, in milliseconds since the epoch. No row depends on it; a declaration that is older
            than the markers' life is not settled.
        stop: why nobody may work on this partition until a person has decided; absent where anybody may.
        v: version of this format.
    """

    last: int
    rules: int
    t: int = 0
    stop: str | msgspec.UnsetType = msgspec.UNSET
    v: int = VERSION


class Committed(msgspec.Struct, frozen=True):
    """A committed offset with what its metadata says.

    Attributes:
        offset: first position that is not acknowledged yet.
        last: last position of the declared range, or `offset` - 1.
        rules: version of the rules under which the range was declared.
        t: when it was declared, in milliseconds since the epoch.
        stop: why the partition is stopped; empty where it is not.
    """

    offset: int
    last: int
    rules: int
    t: int = 0
    stop: str = ""

    @property
    def declared(self) -> Range | None:
        """The declared range, or None for a pure acknowledgement."""
        return Range(self.offset, self.last) if self.last >= self.offset else None


class UnreadableCommitError(Exception):
    """The committed metadata is not ours, or from a newer version: the partition must not be worked on."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Declaration).decode


def write(last: int, rules: int, now_ms: int, *, stop: str = "") -> str:
    """Write the metadata that declares the batch which ends at `last`, or stops the partition."""
    return _encode(Declaration(last=last, rules=rules, t=now_ms, stop=stop or msgspec.UNSET)).decode()


def read(offset: int, metadata: str) -> Committed:
    """Read a committed offset and its metadata.

    Raises:
        UnreadableCommitError: the metadata is empty, foreign, or of a newer version.
    """
    try:
        declaration = _decode(metadata)
    except msgspec.DecodeError as error:
        raise UnreadableCommitError(
            f"the metadata of committed offset {offset} is not flagmeter's ({error}): was the offset set by hand? "
            "Delete the group's committed offset; the markers in the store tell where to go on"
        ) from error
    if declaration.v != VERSION or declaration.last < offset - 1:
        raise UnreadableCommitError(
            f"the metadata of committed offset {offset} has format {declaration.v}, last {declaration.last}; "
            f"this version reads format {VERSION}: run a version that knows it"
        )
    return Committed(offset, declaration.last, declaration.rules, declaration.t, declaration.stop or "")
