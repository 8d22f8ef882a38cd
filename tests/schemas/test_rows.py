"""How a record is settled, row by row (DESIGN.md, Gateway and Tables)."""

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import decode
from schemas.dates import storable
from schemas.event import Headers, Kind, Unreadable
from schemas.lenient import MalformedJsonError
from schemas.limits import MAX_COUNT, MAX_NAME
from schemas.rows import Counted, Outcome, Reason, SetAside, of_record
from schemas.tables import EvaluationKey

WINDOW = {"start": "2026-11-22T00:10:00Z", "stop": "2026-11-22T00:20:00Z"}
HOUR = 1_795_305_600
LONG = "n" * (MAX_NAME + 1)


def headers(kind: Kind = Kind.METRICS, **more: Any) -> Headers:
    known = {
        "kind": kind,
        "route": "/api/client/metrics",
        "project": "default",
        "environment": "development",
        "token_id": "0" * 16,
        "received_ms": 0,
        "body_hash": "0" * 32,
    }
    return msgspec.convert({**known, **more}, Headers)


def single(toggles: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"appName": "shop", "bucket": {**WINDOW, "toggles": toggles}, **more}).encode()


def entry(**more: Any) -> dict[str, Any]:
    known = {"featureName": "f", "appName": "shop", "environment": "development", "timestamp": WINDOW["stop"], "yes": 1}
    return {name: value for name, value in {**known, **more}.items() if value is not ...}


def bulk(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"applications": [], "metrics": entries}).encode()


def settle(body: bytes, headers: Headers) -> list[Outcome]:
    return list(of_record(headers, body))


def of_single(toggles: dict[str, Any], *, of: Headers | None = None, **more: Any) -> list[Outcome]:
    return settle(single(toggles, **more), of or headers())


def of_bulk(*entries: dict[str, Any], **more: Any) -> list[Outcome]:
    return settle(bulk(*entries), headers(Kind.BULK, route="/api/client/metrics/bulk", **more))


def counted(outcomes: list[Outcome]) -> dict[tuple[str, str], tuple[int, int, int]]:
    return {(o.key.feature, o.key.variant): (o.yes, o.no, o.other) for o in outcomes if isinstance(o, Counted)}


def set_aside(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(str(o.reason), o.feature) for o in outcomes if isinstance(o, SetAside)]


class TestWhatIsCounted:
    def test_a_window_gives_a_row_for_each_flag_and_one_for_each_variant(self) -> None:
        found = of_single(
            {"cool": {"yes": 25, "no": 42, "variants": {"blue": 6, "red": 46}}, "other": {"no": 100}},
            platformName="node",
        )
        assert found[0] == Counted(
            EvaluationKey(
                project="default",
                environment="development",
                feature="cool",
                variable="cool",
                variant="",
                hour=HOUR,
                app_name="shop",
                platform="node",
                sdk_type="server",
                source="unleash",
            ),
            25,
            42,
            0,
        )
        assert counted(found) == {
            ("cool", ""): (25, 42, 0),
            ("cool", "blue"): (0, 0, 6),
            ("cool", "red"): (0, 0, 46),
            ("other", ""): (0, 100, 0),
        }

    def test_an_entry_gives_the_same_rows_under_its_timestamps_hour(self) -> None:
        (empty, blue) = of_bulk(entry(no=2, variants={"blue": 3}, platformName="go"))
        assert isinstance(empty, Counted)
        assert isinstance(blue, Counted)
        assert empty.key == blue.key._replace(variant="")
        assert (empty.key.hour, empty.key.platform, empty.key.app_name) == (HOUR, "go", "shop")
        assert (empty.yes, empty.no, empty.other) == (1, 2, 0)
        assert (blue.key.variant, blue.yes, blue.no, blue.other) == ("blue", 0, 0, 3)

    def test_a_window_that_ends_on_the_hour_belongs_to_the_hour_it_covers_and_an_entry_to_its_own(self) -> None:
        body = {"start": "2026-11-22T00:00:00Z", "stop": "2026-11-22T01:00:00Z", "toggles": {"f": {"yes": 1}}}
        (found,) = of_single({}, bucket=body)
        assert isinstance(found, Counted)
        assert found.key.hour == HOUR
        (found,) = of_bulk(entry(timestamp="2026-11-22T01:00:00Z"))
        assert isinstance(found, Counted)
        assert found.key.hour == HOUR + 3600

    def test_variants_are_kept_where_yes_and_no_are_both_zero(self) -> None:
        assert counted(of_single({"f": {"yes": 0, "no": 0, "variants": {"a": 5}}})) == {("f", "a"): (0, 0, 5)}
        assert counted(of_bulk(entry(yes=0, variants={"a": 5}))) == {("f", "a"): (0, 0, 5)}

    def test_zeros_leave_no_trace(self) -> None:
        assert (
            of_single({"f": {"yes": 0, "no": 0}, "g": {}, "h": {"variants": None}, "i": {"variants": {"v": 0}}}) == []
        )
        assert of_bulk(entry(yes=0), entry(yes=0, variants={"v": 0}), entry(yes=0, featureName="", appName="")) == []
        assert of_single({"": {"yes": 0}, LONG: {}}, bucket={**WINDOW, "toggles": {"": {}}}) == []

    def test_zeros_outside_the_stores_time_leave_no_trace_either(self) -> None:
        assert of_single({}, bucket={"start": 0, "stop": "9999-01-01T00:00:00Z", "toggles": {"f": {}}}) == []

    def test_empty_variant_names_are_dropped_and_their_flag_is_not(self) -> None:
        assert of_single({"f": {"yes": 1, "variants": {"": 3, "v": 0}}}) == of_single({"f": {"yes": 1}})
        assert of_bulk(entry(variants={"": 3})) == of_bulk(entry())

    def test_a_payload_without_window_gives_nothing(self) -> None:
        assert of_single({}, bucket=None) == []
        assert settle(b'{"appName":"a"}', headers()) == []

    def test_the_largest_count_is_kept_exactly(self) -> None:
        toggle = {"yes": MAX_COUNT, "no": MAX_COUNT, "variants": {"v": MAX_COUNT}}
        assert counted(of_single({"f": toggle})) == {
            ("f", ""): (MAX_COUNT, MAX_COUNT, 0),
            ("f", "v"): (0, 0, MAX_COUNT),
        }

    def test_a_registration_gives_no_rows(self) -> None:
        body = b'{"appName":"a","interval":1,"started":0,"strategies":[]}'
        assert settle(body, headers(Kind.REGISTER, route="/api/client/register")) == []
        assert settle(b"garbage", headers(Kind.REGISTER)) == []

    def test_names_are_neither_trimmed_nor_folded(self) -> None:
        names = ["Flag", "flag", " flag", "flag ", "flág", "😀", "__proto__"]
        assert [feature for feature, _ in counted(of_single({name: {"yes": 1} for name in names}))] == names


class TestScope:
    def test_a_frontend_token_counts_as_client_and_every_other_as_server(self) -> None:
        for route, sdk_type in (("/api/frontend/client/metrics", "client"), ("/api/client/metrics", "server")):
            (found,) = of_single({"f": {"yes": 1}}, of=headers(route=route))
            assert isinstance(found, Counted)
            assert found.key.sdk_type == sdk_type

    @pytest.mark.parametrize(
        ("sent", "sdk_type"), [("frontend", "client"), ("backend", "server"), (None, "server"), (..., "server")]
    )
    def test_an_entry_says_itself_which_kind_of_sdk_counted(self, sent: Any, sdk_type: str) -> None:
        (found,) = of_bulk(entry(sdkType=sent))
        assert isinstance(found, Counted)
        assert found.key.sdk_type == sdk_type

    def test_the_environment_of_a_window_is_the_tokens(self) -> None:
        (found,) = of_single({"f": {"yes": 1}}, environment="production")
        assert isinstance(found, Counted)
        assert found.key.environment == "development"

    @pytest.mark.parametrize(
        ("sent", "environment"), [("production", "production"), ("", "default"), (None, "default")]
    )
    def test_a_token_of_any_environment_takes_a_windows_own(self, sent: Any, environment: str) -> None:
        (found,) = of_single({"f": {"yes": 1}}, of=headers(environment="*"), environment=sent)
        assert isinstance(found, Counted)
        assert found.key.environment == environment

    def test_a_token_of_any_environment_takes_each_entrys_own(self) -> None:
        found = of_bulk(entry(environment="production"), entry(environment="test"), environment="*")
        assert [o.key.environment for o in found if isinstance(o, Counted)] == ["production", "test"]

    def test_an_entry_of_another_environment_than_its_tokens_is_set_aside(self) -> None:
        found = of_bulk(entry(environment="production"), entry(featureName="g"))
        assert set_aside(found) == [("other_environment", "f")]
        assert counted(found) == {("g", ""): (1, 0, 0)}

    def test_the_project_is_the_headers(self) -> None:
        (found,) = of_bulk(entry(), project="shop-floor")
        assert isinstance(found, Counted)
        assert found.key.project == "shop-floor"


BAD_NAMES = [("", "empty_feature"), (LONG, "name_too_long"), ("a\0b", "nul_in_name")]


class TestWhatIsSetAside:
    @pytest.mark.parametrize(("name", "reason"), BAD_NAMES)
    def test_a_bad_flag_name_never_costs_its_neighbours(self, name: str, reason: str) -> None:
        found = of_single({"a": {"yes": 1}, name: {"yes": 2, "no": 3, "variants": {"v": 4}}, "z": {"no": 5}})
        assert counted(found) == {("a", ""): (1, 0, 0), ("z", ""): (0, 5, 0)}
        assert set_aside(found) == [(reason, name[:MAX_NAME])]
        found = of_bulk(entry(), entry(featureName=name, variants={"v": 4}), entry(featureName="z"))
        assert counted(found) == {("f", ""): (1, 0, 0), ("z", ""): (1, 0, 0)}
        assert set_aside(found) == [(reason, name[:MAX_NAME])]

    @pytest.mark.parametrize(("name", "reason"), BAD_NAMES[1:])
    def test_a_bad_variant_name_costs_neither_its_flag_nor_other_variants(self, name: str, reason: str) -> None:
        variants = {"a": 1, name: 2, "z": 3}
        expected = {("f", ""): (1, 0, 0), ("f", "a"): (0, 0, 1), ("f", "z"): (0, 0, 3)}
        for found in (of_single({"f": {"yes": 1, "variants": variants}}), of_bulk(entry(variants=variants))):
            assert counted(found) == expected
            assert set_aside(found) == [(reason, "f")]

    def test_the_longest_name_is_counted_in_code_points(self) -> None:
        longest = "😀" * MAX_NAME
        toggles = {longest: {"yes": 1, "variants": {longest: 1}}}
        found = of_single(toggles, appName=longest, platformName=longest)
        assert counted(found) == {(longest, ""): (1, 0, 0), (longest, longest): (0, 0, 1)}

    @pytest.mark.parametrize(
        ("more", "reason"),
        [
            ({"appName": LONG}, "name_too_long"),
            ({"appName": "a\0"}, "nul_in_name"),
            ({"platformName": LONG}, "name_too_long"),
            ({"platformName": "\0"}, "nul_in_name"),
        ],
    )
    def test_a_bad_app_or_platform_sets_the_whole_window_aside_in_one_piece(
        self, more: dict[str, Any], reason: str
    ) -> None:
        found = of_single({"f": {"yes": 1}, "g": {"no": 2}, "zero": {}}, **more)
        assert set_aside(found) == [(reason, "")]
        assert len(found) == 1
        assert isinstance(found[0], SetAside)
        assert set(json.loads(found[0].payload)["bucket"]["toggles"]) == {"f", "g"}
        assert len(found[0].app_name) <= MAX_NAME

    def test_a_bad_environment_matters_only_where_it_counts(self) -> None:
        assert set_aside(of_single({"f": {"yes": 1}}, environment=LONG)) == []
        found = of_single({"f": {"yes": 1}}, of=headers(environment="*"), environment=LONG)
        assert set_aside(found) == [("name_too_long", "")]

    @pytest.mark.parametrize(
        ("more", "reason"),
        [
            ({"appName": ""}, "empty_app"),
            ({"appName": None}, "empty_app"),
            ({"appName": LONG}, "name_too_long"),
            ({"appName": "\0"}, "nul_in_name"),
            ({"timestamp": ...}, "no_timestamp"),
            ({"timestamp": "1899-12-31T23:59:59Z"}, "time_out_of_range"),
            ({"timestamp": "2300-01-01T00:00:00Z"}, "time_out_of_range"),
            ({"timestamp": 8_640_000_000_000_000}, "time_out_of_range"),
            ({"platformName": "p\0"}, "nul_in_name"),
            ({"environment": "production"}, "other_environment"),
        ],
    )
    def test_a_bad_entry_never_costs_its_neighbours(self, more: dict[str, Any], reason: str) -> None:
        found = of_bulk(entry(featureName="a"), entry(**more), entry(featureName="z"))
        assert counted(found) == {("a", ""): (1, 0, 0), ("z", ""): (1, 0, 0)}
        assert set_aside(found) == [(reason, "f")]

    @pytest.mark.parametrize(
        ("stop", "kept"),
        [
            ("1899-12-31T23:59:59Z", False),
            ("1900-01-01T00:00:00Z", False),  # covers the hour before
            ("1900-01-01T00:00:00.000000001Z", True),
            ("1926-05-08T13:00:00.000Z", True),
            ("2250-06-01T00:00:00Z", True),
            ("2300-01-01T00:00:00Z", True),  # covers the hour before
            ("2300-01-01T00:00:00.001Z", False),
            ("9999-12-31T23:59:59Z", False),
            (8_640_000_000_000_000, False),
            (-8_640_000_000_000_000, False),
        ],
    )
    def test_a_window_outside_the_stores_time_is_set_aside(self, stop: Any, kept: bool) -> None:
        found = of_single({}, bucket={"start": -8_640_000_000_000_000, "stop": stop, "toggles": {"f": {"yes": 1}}})
        if stop == -8_640_000_000_000_000 or not kept:
            assert set_aside(found) == [("time_out_of_range", "")]
        else:
            assert counted(found) == {("f", ""): (1, 0, 0)}


class TestSetAsideDocuments:
    def test_the_document_of_a_bad_flag_holds_that_flag_alone_and_decodes_again(self) -> None:
        toggle = {"yes": 2, "no": 3, "variants": {"v": 4}}
        (_, aside) = of_single({"a": {"yes": 1}, "b\0": toggle}, platformName="node", instanceId="i")
        assert isinstance(aside, SetAside)
        document = json.loads(aside.payload)
        assert document["bucket"] == {**WINDOW, "toggles": {"b\0": toggle}}
        assert settle(aside.payload, headers()) == [aside]

    def test_the_document_of_a_bad_variant_holds_that_variant_alone_and_decodes_again(self) -> None:
        aside = of_single({"f": {"yes": 1, "variants": {"a": 1, "b\0": 2}}})[-1]
        assert isinstance(aside, SetAside)
        assert json.loads(aside.payload)["bucket"]["toggles"] == {"f": {"yes": 0, "no": 0, "variants": {"b\0": 2}}}
        assert settle(aside.payload, headers()) == [aside]

    @pytest.mark.parametrize(
        "more",
        [
            {"timestamp": ...}, {"appName": ""}, {"environment": "production"}, {"featureName": ""},
            {"variants": {"v\0": 3}, "yes": 0, "sdkType": "frontend"}, {"timestamp": "9999-01-01T00:00:00Z"},
        ],
        ids=range(6),
    )  # fmt: skip
    def test_the_document_of_an_entry_decodes_again_by_the_same_decoder(self, more: dict[str, Any]) -> None:
        (aside,) = of_bulk(entry(sdkVersion="x:1", **more))
        assert isinstance(aside, SetAside)
        assert settle(aside.payload, headers(Kind.BULK)) == [aside]

    def test_what_was_set_aside_for_its_environment_counts_once_the_token_allows_it(self) -> None:
        (aside,) = of_bulk(entry(environment="production", variants={"v": 2}))
        assert isinstance(aside, SetAside)
        again = settle(aside.payload, headers(Kind.BULK, environment="production"))
        assert counted(again) == {("f", ""): (1, 0, 0), ("f", "v"): (0, 0, 2)}

    def test_a_window_of_any_environment_keeps_its_own_in_the_document(self) -> None:
        (aside,) = of_single({"b\0": {"yes": 1}}, of=headers(environment="*"), environment="production")
        assert isinstance(aside, SetAside)
        assert json.loads(aside.payload)["environment"] == "production"

    def test_free_texts_are_not_repeated_for_every_bad_name(self) -> None:
        free = "x" * 100_000
        found = of_single({f"{at}\0": {"yes": 1} for at in range(100)}, instanceId=free, sdkVersion=free)
        assert len(found) == 100
        assert sum(len(o.payload) for o in found if isinstance(o, SetAside)) < 100_000
        found = of_bulk(entry(sdkVersion=free, variants={f"{at}\0": 1 for at in range(100)}))
        assert sum(len(o.payload) for o in found if isinstance(o, SetAside)) < 100_000


class TestUnreadable:
    @pytest.mark.parametrize("value", [b"x", b"{}", b"\xff\x00", b'{"appName":"a","bucket":{}}', b"[" * 100_000])
    @pytest.mark.parametrize("kind", [Kind.METRICS, Kind.BULK])
    def test_a_record_that_no_decoder_reads_is_set_aside_as_it_is(self, kind: Kind, value: bytes) -> None:
        assert settle(value, headers(kind)) == [SetAside(Reason.UNREADABLE, "", "", value)]

    def test_a_record_with_unreadable_headers_is_set_aside_with_them(self) -> None:
        (aside,) = of_record(Unreadable(b"\x00\xff", "headers: odd"), b"\xfe value")
        assert isinstance(aside, SetAside)
        assert aside.reason is Reason.UNREADABLE
        found = msgspec.json.decode(aside.payload, type=dict[str, Any])
        assert found["why"] == "headers: odd"
        assert msgspec.convert(found["value"], bytes) == b"\xfe value"
        assert msgspec.convert(found["headers"], bytes) == b"\x00\xff"

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(Kind), st.binary(max_size=80))
    def test_no_bytes_raise_or_disappear(self, kind: Kind, value: bytes) -> None:
        outcomes = settle(value, headers(kind))
        if kind is not Kind.REGISTER:
            assert all(isinstance(outcome, Counted | SetAside) for outcome in outcomes)


NAMES = st.text(max_size=6) | st.sampled_from(["", LONG, "a\0b", "flag"])
COUNTS = st.integers(0, 5) | st.just(MAX_COUNT)
TOGGLES = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {}, optional={"yes": COUNTS, "no": COUNTS, "variants": st.dictionaries(NAMES, COUNTS, max_size=3)}
    ),
    max_size=4,
)
MS = st.sampled_from([0, 1_795_306_200_000, -3_000_000_000_000, 10**13, 10**14])


@settings(max_examples=100, deadline=None)
@given(TOGGLES, MS, MS, NAMES.filter(bool), NAMES)
def test_every_count_of_a_window_is_counted_or_set_aside(
    toggles: dict[str, Any], start: int, stop: int, app: str, platform: str
) -> None:
    bucket = {"start": start, "stop": stop, "toggles": toggles}
    outcomes = of_single({}, bucket=bucket, appName=app, platformName=platform)
    yes = no = variants = 0
    for outcome in outcomes:
        if isinstance(outcome, Counted):
            key = outcome.key
            assert storable(key.hour)
            assert all(0 < len(name) <= MAX_NAME and "\0" not in name for name in (key.feature, key.app_name))
            assert outcome.yes or outcome.no or outcome.other
            assert bool(key.variant) == bool(outcome.other)
            yes, no, variants = yes + outcome.yes, no + outcome.no, variants + outcome.other
        else:
            assert settle(outcome.payload, headers()) == [outcome]
            for toggle in json.loads(outcome.payload)["bucket"]["toggles"].values():
                yes, no = yes + toggle["yes"], no + toggle["no"]
                variants += sum(count for name, count in (toggle["variants"] or {}).items() if name)
    assert yes == sum(toggle.get("yes", 0) for toggle in toggles.values())
    assert no == sum(toggle.get("no", 0) for toggle in toggles.values())
    assert variants == sum(
        count for toggle in toggles.values() for name, count in toggle.get("variants", {}).items() if name
    )
    assert outcomes == of_single({}, bucket=bucket, appName=app, platformName=platform)


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_whatever_the_gateway_could_read_is_counted_with_less_of_the_stack_left(brackets: tuple[bytes, bytes]) -> None:
    opened, closed = brackets

    def body(depth: int) -> bytes:
        window = b'"appName":"a","bucket":{"start":0,"stop":1,"toggles":{"f":{"yes":1}}}'
        return b'{"x":' + opened * depth + b"1" + closed * depth + b"," + window + b"}"

    def is_read(depth: int) -> bool:
        try:
            decode.metrics(body(depth))
        except MalformedJsonError:
            return False
        return True

    deepest = next(depth for depth in range(1000, 0, -1) if is_read(depth))

    def counted(frames: int) -> list[Outcome]:
        return counted(frames - 1) if frames else list(of_record(headers(), body(deepest)))

    usual = sys.getrecursionlimit()
    assert deepest > 300
    assert [type(outcome) for outcome in counted(100)] == [Counted]
    assert sys.getrecursionlimit() == usual
    (aside,) = of_record(headers(), body(5000))
    assert isinstance(aside, SetAside)
    assert aside.reason is Reason.UNREADABLE
