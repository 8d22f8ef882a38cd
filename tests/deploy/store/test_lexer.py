import pytest

from deploy.store.errors import Fault
from deploy.store.lexer import Kind, tokens


def texts(source: str) -> list[str]:
    return [token.text for token in tokens(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("SELECT a.b,1", ["SELECT", "a", ".", "b", ",", "1"]),
        ("a -- b\n c", ["a", "c"]),
        ("a --b", ["a"]),
        ("a // b\nc", ["a", "c"]),
        ("a # b\nc", ["a", "c"]),
        ("a #! b\nc", ["a", "c"]),
        ("a/* b\n */c", ["a", "c"]),
        ("'a''b' c", ["a''b", "c"]),
        ("'a\\'b' c", ["a\\'b", "c"]),
        ("'--' c", ["--", "c"]),
        ('`a``b` "c""d"', ["a`b", 'c"d']),
        ("$x$ a ' b $x$ c", ["x$ a ' b $x", "c"]),
        ("a$x$b", ["a$x$b"]),
        ("1.5e-3", ["1", ".", "5e", "-", "3"]),
        ("{p:String}", ["{", "p", ":", "String", "}"]),
        ("'\u00e4' -- \u00e4", ["\u00e4"]),
    ],
)
def test_tokens_are_clickhouses(source, expected):
    assert texts(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "'open",
        "'open\\'",
        "`open",
        '"open',
        "/* open",
        "$x$ open",
        "$x",
        "a /* b /* c */ d */",
        "`a\\x62`",
        '"a\\"b"',
        "\u00e4",
        "\u2018a\u2019",
        "a\u00a0b",
        "a\\G",
        "a\x00b",
        "#a",
    ],
)
def test_what_is_no_sql_or_could_be_read_in_two_ways_is_refused(source):
    with pytest.raises(Fault, match="Syntax error") as refused:
        texts(source.encode().decode("latin-1"))
    assert refused.value.code == 62


def test_kinds_and_offsets_are_those_of_the_source():
    found = list(tokens("a `b`  'c'("))
    assert [(token.kind, token.start, token.end) for token in found] == [
        (Kind.WORD, 0, 1),
        (Kind.QUOTED, 2, 5),
        (Kind.STRING, 7, 10),
        (Kind.SYMBOL, 10, 11),
    ]
    assert [token.upper for token in found] == ["A", "", "", ""]
    assert [token.name for token in found] == ["a", "b", "", ""]


def test_a_text_of_megabytes_is_read_in_its_own_time():
    assert len(texts("SELECT '" + "x\\'''" * 400_000 + "'")) == 2
    with pytest.raises(Fault):
        texts("'" + "''" * 400_000)


def test_tokens_come_one_by_one():
    stream = tokens("FORMAT Native \x00\xff'")
    assert [next(stream).text, next(stream).text] == ["FORMAT", "Native"]
