import pytest

from deploy.store.errors import READONLY, Fault, parse


@pytest.mark.parametrize(
    ("text", "code", "name", "message"),
    [
        ("Code: 60. DB::Exception: No table t. (UNKNOWN_TABLE)", 60, "UNKNOWN_TABLE", "No table t."),
        (
            "Code: 164. DB::Exception: Code: 164. DB::Exception: No change. (READONLY) (version 26.9.2). (READONLY)",
            164,
            "READONLY",
            "No change.",
        ),
        (
            "Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT) (version 26.9.2.1)",
            73,
            "UNKNOWN_FORMAT",
            "Unknown format X.",
        ),
        ("Code: 1. DB::Exception: a (b). (version 1.2 (official build))", 1, "UNKNOWN_EXCEPTION", "a (b)."),
        ("Streaming query failed: Code: 6. DB::Exception: x\ny. (ABC)", 6, "ABC", "x\ny."),
        ("something else", 1002, "UNKNOWN_EXCEPTION", "something else"),
        ("", 1002, "UNKNOWN_EXCEPTION", "the engine failed without a message"),
    ],
)
def test_the_engines_text_is_taken_apart(text, code, name, message):
    found = parse(text)
    assert (found.code, found.name, found.message) == (code, name, message)


def test_the_answer_has_one_full_stop_the_name_and_the_version():
    assert Fault(READONLY, "No").text("26.9") == "Code: 164. DB::Exception: No. (READONLY) (version 26.9)\n"
    assert Fault(READONLY, "No.").text("26.9") == "Code: 164. DB::Exception: No. (READONLY) (version 26.9)\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *((62, 400), (60, 404), (81, 404), (516, 403), (497, 403), (194, 401), (159, 408), (229, 413)),
        *((48, 501), (209, 503), (202, 503), (164, 500), (241, 500), (381, 411)),
    ],
)
def test_statuses_are_a_servers(code, status):
    assert Fault((code, "X"), "x").status == status
