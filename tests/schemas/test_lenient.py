"""The lenient decoder: what it coerces, and what it refuses and how."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import decode, lenient, payloads
from schemas.complaint import number_text
from schemas.lenient import MalformedJsonError
from schemas.limits import MAX_COUNT
from schemas.payloads import Application, Toggle
from schemas.refusal import Check, RefusedPayload

WINDOW = {"start": "2026-11-22T00:10:00Z", "stop": "2026-11-22T00:20:00Z"}
ENTRY = {"featureName": "f", "appName": "a", "environment": "e", "timestamp": 0}
APPLICATION = {"appName": "a", "interval": 15, "started": 0}
REGISTRATION = {"appName": "a", "interval": 15, "started": 0, "strategies": []}


def single(toggle: Any = None, **more: Any) -> bytes:
    toggles = {} if toggle is None else {"f": toggle}
    return json.dumps({"appName": "a", "bucket": {**WINDOW, "toggles": toggles}, **more}).encode()


def bulk(*entries: Any, applications: Any = (), **more: Any) -> bytes:
    return json.dumps({"applications": list(applications), "metrics": list(entries), **more}).encode()


def register(**more: Any) -> bytes:
    return json.dumps({**REGISTRATION, **more}).encode()


def toggle_of(body: bytes) -> Toggle:
    bucket = lenient.metrics(body).bucket
    assert bucket is not None
    return bucket.toggles["f"]


def refusal(reader: Any, body: bytes) -> RefusedPayload:
    with pytest.raises(RefusedPayload) as caught:
        reader(body)
    return caught.value


class TestCounts:
    @pytest.mark.parametrize(
        ("sent", "taken"),
        [
            (None, 0),
            (True, 1),
            (False, 0),
            ("3", 3),
            (" 3 ", 3),
            ("+3", 3),
            ("3.", 3),
            ("1e3", 1000),
            (" ", 0),
            (1.0, 1),
            (1e3, 1000),
            (-0.0, 0),
            (MAX_COUNT, MAX_COUNT),
            (str(MAX_COUNT), MAX_COUNT),
        ],
    )
    def test_what_javascript_makes_a_whole_number_is_one(self, sent: Any, taken: int) -> None:
        found = toggle_of(single({"yes": sent, "no": sent, "variants": {"v": sent}}))
        assert found == Toggle(yes=taken, no=taken, variants={"v": taken})
        (entry,) = lenient.bulk(bulk({**ENTRY, "yes": sent, "no": sent, "variants": {"v": sent}})).metrics
        assert (entry.yes, entry.no, entry.variants) == (taken, taken, {"v": taken})
        assert all(type(count) is int for count in (found.yes, found.no, entry.yes, entry.no))

    @pytest.mark.parametrize("sent", ["", "x", "NaN", "1_000", "٣", "3 4", "--3", [], {}, [3]])
    def test_everything_else_is_refused_by_the_schema(self, sent: Any) -> None:
        for field, kind in (("yes", "number"), ("no", "integer")):
            refused = refusal(lenient.metrics, single({field: sent}))
            assert refused.check is Check.SCHEMA
            assert refused.details[0].path == f"/body/bucket/toggles/f/{field}"
            assert f"must be {kind}" in refused.details[0].message

    @pytest.mark.parametrize(
        ("sent", "taken"),
        [(1.5, 2), (1.4, 1), (0.5, 1), (0.49999999999999994, 0), ("2.5", 3), (4503599627370495.5, 4503599627370496)],
    )
    def test_a_fraction_of_yes_is_rounded_half_away_from_zero_on_the_single_path(self, sent: Any, taken: int) -> None:
        assert toggle_of(single({"yes": sent})).yes == taken

    def test_a_fraction_is_refused_everywhere_else(self) -> None:
        for reader, body, path in (
            (lenient.metrics, single({"no": 1.5}), "/body/bucket/toggles/f/no"),
            (lenient.metrics, single({"variants": {"v": 1.5}}), "/body/bucket/toggles/f/variants/v"),
            (lenient.bulk, bulk({**ENTRY, "yes": 1.5}), "/body/metrics/0/yes"),
            (lenient.bulk, bulk({**ENTRY, "no": "1.5"}), "/body/metrics/0/no"),
        ):
            refused = refusal(reader, body)
            assert (refused.check, refused.details[0].path) == (Check.SCHEMA, path)

    @pytest.mark.parametrize("sent", [-1, -0.5, "-3", -1e300, "-Infinity"])
    def test_a_negative_count_is_refused_by_the_schema(self, sent: Any) -> None:
        refused = refusal(lenient.metrics, single({"yes": sent}))
        assert refused.check is Check.SCHEMA
        assert "must be >= 0" in refused.details[0].message

    @pytest.mark.parametrize(
        "sent",
        [str(2**53), str(2**60), "9" * 5000, "1e300", "1e999", '"1e999"', '"Infinity"', '"9007199254740992"'],
        ids=lambda sent: sent[:20],
    )
    def test_a_count_above_the_safe_ones_is_refused_by_its_value(self, sent: str) -> None:
        for toggle in ('{"yes": %s}', '{"no": %s}', '{"variants": {"v": %s}}'):
            body = single({"x": 0}).replace(b'{"x": 0}', (toggle % sent).encode())
            assert refusal(lenient.metrics, body).check is Check.VALUE

    def test_the_reason_is_worded_for_the_frontend(self) -> None:
        (detail,) = refusal(lenient.metrics, single({"yes": 2**60})).details
        assert detail.message == '"bucket.toggles.f.yes" must be a safe number. You provided 1152921504606847000.'
        assert detail.path == ""

    def test_the_schema_is_asked_about_the_whole_body_before_any_value(self) -> None:
        body = json.dumps({"appName": "a", "bucket": {"start": 1e16, "stop": "x", "toggles": {}}}).encode()
        assert refusal(lenient.metrics, body).check is Check.SCHEMA


class TestTexts:
    @pytest.mark.parametrize(
        ("sent", "taken"),
        [
            (123, "123"),
            (1.0, "1"),
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (123456789012345680000, "123456789012345680000"),
            (1e-7, "1e-7"),
            (0.000001, "0.000001"),
            (-0.0, "0"),
            (True, "true"),
            (False, "false"),
        ],
    )
    def test_numbers_and_booleans_become_what_javascript_prints(self, sent: Any, taken: str) -> None:
        assert lenient.metrics(single(appName=sent)).app_name == taken
        assert lenient.metrics(single(platformName=sent)).platform_name == taken

    def test_numbers_are_printed_as_javascript_prints_them(self) -> None:
        printed = {
            5e-324: "5e-324",
            1.7976931348623157e308: "1.7976931348623157e+308",
            -1.25e-9: "-1.25e-9",
            1152921504606846976: "1152921504606847000",
            0.1: "0.1",
            100.0: "100",
            123.456: "123.456",
            1e20: "100000000000000000000",
            -12e21: "-1.2e+22",
        }
        assert {value: number_text(value) for value in printed} == printed

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_a_printed_number_reads_back_as_itself(self, value: float) -> None:
        assert float(number_text(value)) == value

    def test_null_is_absent_where_the_field_is_optional_and_empty_where_it_is_not(self) -> None:
        assert lenient.metrics(single(instanceId=None)).instance_id is None
        (entry,) = lenient.bulk(bulk({**ENTRY, "featureName": None, "appName": None})).metrics
        assert (entry.feature_name, entry.app_name) == ("", "")

    @pytest.mark.parametrize("sent", [[], {}, ["a"]])
    def test_arrays_and_objects_are_refused(self, sent: Any) -> None:
        for field in ("appName", "instanceId", "connectionId", "sdkVersion", "specVersion", "sdkFlavor"):
            refused = refusal(lenient.metrics, single(**{field: sent}))
            assert (refused.check, refused.details[0].path) == (Check.SCHEMA, f"/body/{field}")

    def test_an_empty_app_name_is_refused_in_a_single_payload_and_taken_in_an_entry(self) -> None:
        assert "fewer than 1 characters" in refusal(lenient.metrics, single(appName="")).details[0].message
        assert lenient.bulk(bulk({**ENTRY, "appName": ""})).metrics[0].app_name == ""

    def test_flavors_have_a_longest_length(self) -> None:
        assert lenient.metrics(single(sdkFlavor="x" * 256, sdkFlavorVersion="y" * 32)).sdk_flavor == "x" * 256
        for field, length in (("sdkFlavor", 257), ("sdkFlavorVersion", 33)):
            for reader, body in ((lenient.metrics, single), (lenient.registration, register)):
                assert refusal(reader, body(**{field: "x" * length})).check is Check.SCHEMA

    def test_lone_surrogates_become_the_replacement_character_in_names_and_values(self) -> None:
        body = (
            rb'{"appName":"\ud800a\udc00","bucket":{"start":0,"stop":0,'
            rb'"toggles":{"\udfff":{"yes":1,"variants":{"\ud83d":2,"\ud83d\ude00":3}}}}}'
        )
        payload = decode.metrics(body)
        assert payload.app_name == "\ufffda\ufffd"
        assert payload.bucket is not None
        assert payload.bucket.toggles == {"\ufffd": Toggle(yes=1, variants={"\ufffd": 2, "😀": 3})}
        msgspec.json.encode(payload)  # must not raise

    def test_a_refusal_that_repeats_lone_surrogates_can_be_written(self) -> None:
        refused = refusal(
            decode.metrics, rb'{"appName":"a","bucket":{"start":0,"stop":0,"toggles":{"\ud800":"\ud800"}}}'
        )
        msgspec.json.encode(refused.details)  # must not raise

    def test_a_refusal_repeats_little_of_what_was_sent(self) -> None:
        refused = refusal(decode.metrics, single(bucket="x" * 100_000))
        assert len(refused.details[0].message) < 500
        refused = refusal(decode.metrics, single().replace(b"{}", b'{"%s": null}' % (b"n" * 100_000)))
        assert len(refused.details[0].message + refused.details[0].path) < 1000


class TestObjects:
    @pytest.mark.parametrize("body", [b"null", b"[]", b"[1]", b"1", b'"x"', b"true"])
    def test_a_body_that_is_no_object_is_refused(self, body: bytes) -> None:
        for reader in (lenient.metrics, lenient.bulk, lenient.registration):
            refused = refusal(reader, body)
            assert (refused.check, refused.details[0].path) == (Check.SCHEMA, "/body")

    def test_an_empty_body_is_an_empty_object(self) -> None:
        for body in (b"", b"\xef\xbb\xbf"):
            assert refusal(lenient.metrics, body).details[0].path == "/body/appName"
            assert refusal(lenient.bulk, body).details[0].path == "/body/applications"

    def test_of_equal_names_the_last_wins(self) -> None:
        payload = lenient.metrics(b'{"appName":1,"appName":"b","bucket":{"start":0,"stop":0,"toggles":'
                                  b'{"f":{"yes":1,"no":1},"f":{"yes":"5"}}}}')  # fmt: skip
        assert payload.app_name == "b"
        assert payload.bucket is not None
        assert payload.bucket.toggles == {"f": Toggle(yes=5)}

    def test_unknown_fields_are_ignored_at_every_level(self) -> None:
        body = single({"yes": "1", "maybe": {}}, unknown=[1], impactMetrics="garbage")
        assert toggle_of(body) == Toggle(yes=1)

    def test_slashes_and_tildes_in_names_are_escaped_in_a_path(self) -> None:
        body = single().replace(b"{}", b'{"a/b~c": null}')
        assert refusal(lenient.metrics, body).details[0].path == "/body/bucket/toggles/a~1b~0c"

    def test_variants_may_be_null_in_a_single_payload_only(self) -> None:
        assert toggle_of(single({"yes": 1, "variants": None})).variants is None
        refused = refusal(decode.bulk, bulk({**ENTRY, "variants": None}))
        assert (refused.check, refused.details[0].path) == (Check.SCHEMA, "/body/metrics/0/variants")

    def test_every_struct_has_a_rule_for_each_field(self) -> None:
        from schemas.coerce import record, text

        with pytest.raises(TypeError, match="ConnectVia"):
            record(payloads.ConnectVia, app_name=text)


class TestDates:
    @pytest.mark.parametrize("sent", [None, True, "", "x", 1.5, [], {}, "2026-02-30T00:00:00Z", "2026-11-22"])
    def test_what_is_no_date_is_refused_with_three_details(self, sent: Any) -> None:
        refused = refusal(decode.metrics, single(bucket={"start": 0, "stop": sent, "toggles": {}}))
        assert refused.check is Check.SCHEMA
        assert [detail.path for detail in refused.details] == ["/body/bucket/stop"] * 3
        refused = refusal(decode.bulk, bulk({**ENTRY, "timestamp": sent}))
        assert [detail.path for detail in refused.details] == ["/body/metrics/0/timestamp"] * 3

    @pytest.mark.parametrize("sent", ["1e16", "8640000000000001", '"2016-12-31T23:59:60Z"', "1e400", "-1e16"])
    def test_an_impossible_instant_is_refused_by_its_value(self, sent: str) -> None:
        body = single(bucket={"start": 0, "stop": "X", "toggles": {}}).replace(b'"X"', sent.encode())
        refused = refusal(decode.metrics, body)
        assert refused.check is Check.VALUE
        assert refused.details[0].message.startswith('"bucket.stop" must be a valid date.')

    def test_a_whole_double_counts_as_an_integer(self) -> None:
        payload = decode.metrics(b'{"appName":"a","bucket":{"start":1.0,"stop":1.7953062e12,"toggles":{}}}')
        assert payload.bucket == payloads.Bucket(start=1, stop=1795306200000, toggles={})

    def test_a_registration_may_have_started_at_any_number(self) -> None:
        started = {"1.5": 1.5, "1795306200": 1795306200, '"1.5"': 1.5, '"15"': "15", "1795306200000.0": 1795306200000}
        for sent, taken in started.items():
            body = register(started="X").replace(b'"X"', sent.encode())
            assert decode.registration(body).started == taken
        assert refusal(decode.registration, register(started=None)).check is Check.SCHEMA
        assert refusal(decode.registration, register(started=1e17)).check is Check.VALUE


class TestApplications:
    def test_one_without_started_or_interval_is_refused_by_its_value(self) -> None:
        for missing in ("started", "interval"):
            application = {name: value for name, value in APPLICATION.items() if name != missing}
            assert refusal(decode.bulk, bulk(applications=[application])).check is Check.VALUE

    def test_a_frontend_one_with_a_version_may_lack_both(self) -> None:
        sent = {"appName": "a", "sdkType": "frontend", "sdkVersion": "js:1"}
        for body in (bulk(applications=[sent]), bulk({**ENTRY, "yes": "1"}, applications=[sent])):
            (taken,) = decode.bulk(body).applications
            assert taken.interval is msgspec.UNSET
            assert taken.started is msgspec.UNSET

    def test_strategies_that_are_no_strings_are_left_out(self) -> None:
        sent = {**APPLICATION, "strategies": ["a", 1, None, {}, "b", ["c"]]}
        assert decode.bulk(bulk(applications=[sent])).applications[0].strategies == ["a", "b"]
        assert decode.registration(register(strategies=[1, "a", None])).strategies == ["a"]

    def test_the_specification_allows_null_for_what_describes_one(self) -> None:
        optional = [
            "instanceId", "connectionId", "environment", "projects", "connectVia", "sdkVersion", "sdkType",
            "yggdrasilVersion", "platformName", "platformVersion",
        ]  # fmt: skip
        (taken,) = decode.bulk(bulk(applications=[{**APPLICATION, **dict.fromkeys(optional)}])).applications
        assert taken == Application(app_name="a", interval=15.0, started=0)

    def test_projects_and_connections_are_coerced(self) -> None:
        sent = {**APPLICATION, "projects": [1, None, "p"], "connectVia": [{"appName": 1, "instanceId": None}]}
        (taken,) = decode.bulk(bulk(applications=[sent])).applications
        assert taken.projects == ["1", "", "p"]
        assert taken.connect_via == [payloads.ConnectVia(app_name="1", instance_id="")]
        wrong: dict[str, Any]
        for wrong in ({"projects": [{}]}, {"connectVia": [{"appName": "e"}]}, {"connectVia": {}}, {"strategies": None}):
            assert refusal(decode.bulk, bulk(applications=[{**APPLICATION, **wrong}])).check is Check.SCHEMA

    @pytest.mark.parametrize("sent", ["xx", "", 1, True])
    def test_an_unknown_sdk_type_is_refused_without_a_path_into_the_body(self, sent: Any) -> None:
        refused = refusal(decode.bulk, bulk(applications=[{**APPLICATION, "sdkType": sent}]))
        assert (refused.check, refused.details[0].path) == (Check.SCHEMA, "sdkType")


class TestEntries:
    def test_no_descriptive_field_of_an_entry_costs_the_post(self) -> None:
        sent = {**ENTRY, "yes": 1, "sdkType": "xx", "sdkVersion": {}, "platformName": [], "sdkFlavor": 5}
        (entry,) = decode.bulk(bulk(sent)).metrics
        assert (entry.sdk_type, entry.sdk_version, entry.platform_name, entry.sdk_flavor) == ("xx", None, None, "5")

    def test_an_entry_may_lack_its_timestamp(self) -> None:
        sent = {name: value for name, value in ENTRY.items() if name != "timestamp"}
        assert decode.bulk(bulk(sent)).metrics[0].timestamp is msgspec.UNSET

    @pytest.mark.parametrize("sent", ["", None])
    def test_an_entry_without_environment_is_refused_by_its_value(self, sent: Any) -> None:
        assert refusal(decode.bulk, bulk({**ENTRY, "environment": sent})).check is Check.VALUE

    def test_a_registration_of_an_empty_version_is_refused_by_its_value(self) -> None:
        for sent in ("", None):
            refused = refusal(decode.registration, register(sdkVersion=sent))
            assert refused.check is Check.VALUE
            assert refused.details[0].message == '"sdkVersion" is not allowed to be empty.'

    def test_a_negative_interval_of_a_registration_is_refused_by_the_schema(self) -> None:
        assert refusal(decode.registration, register(interval=-1)).details[0].path == "/body/interval"
        assert refusal(decode.registration, register(interval=1e300)).check is Check.VALUE
        assert decode.registration(register(interval="1.5")).interval == 1.5


NUMERIC: dict[str, Any] = {"name": "n", "help": "h", "type": "counter", "samples": [{"value": 1}]}
HISTOGRAM: dict[str, Any] = {
    "name": "n",
    "help": "h",
    "type": "histogram",
    "samples": [{"count": 1, "sum": 2, "buckets": [{"le": 1, "count": 1}, {"le": "+Inf", "count": 1}]}],
}


class TestImpactMetrics:
    @pytest.mark.parametrize("more", [{}, {"type": "gauge"}, {"samples": [{"value": "3", "labels": {"a": 1}}]}])
    def test_counters_and_gauges_are_taken(self, more: dict[str, Any]) -> None:
        (taken,) = decode.bulk(bulk(impactMetrics=[{**NUMERIC, **more}])).impact_metrics or []
        assert isinstance(taken, payloads.Counter | payloads.Gauge)
        assert isinstance(taken.samples[0].value, float)
        assert taken.samples[0].labels in (None, {"a": "1"})

    def test_histograms_are_taken(self) -> None:
        strict = decode.bulk(bulk(impactMetrics=[HISTOGRAM]))
        assert lenient.bulk(bulk(impactMetrics=[HISTOGRAM])) == strict
        assert strict.impact_metrics is not None
        sample = strict.impact_metrics[0].samples[0]
        assert isinstance(sample, payloads.HistogramSample)
        assert [bucket.le for bucket in sample.buckets] == [1.0, "+Inf"]

    @pytest.mark.parametrize(
        "wrong",
        [
            None,
            [],
            {**NUMERIC, "samples": None},
            {**NUMERIC, "samples": [{}]},
            {**NUMERIC, "samples": [{"value": "x"}]},
            {**NUMERIC, "samples": [{"value": 1, "labels": {"a": {}}}]},
            {**NUMERIC, "type": "histogram"},
            {**NUMERIC, "type": 5},
            {name: value for name, value in NUMERIC.items() if name != "type"},
            {**HISTOGRAM, "samples": [{"count": -1, "sum": 2, "buckets": []}]},
            {**HISTOGRAM, "samples": [{"count": 1, "sum": 2, "buckets": [{"le": "x", "count": 1}]}]},
            {**HISTOGRAM, "samples": [{"count": 1, "sum": 2}]},
        ],
    )
    def test_anything_else_in_a_bulk_post_is_refused(self, wrong: Any) -> None:
        refused = refusal(decode.bulk, bulk(impactMetrics=[NUMERIC, wrong]))
        assert refused.check is Check.SCHEMA
        assert refused.details[-1].path == "/body/impactMetrics/1"

    def test_null_stands_for_none_of_them(self) -> None:
        assert decode.bulk(bulk(impactMetrics=None)).impact_metrics is None

    def test_a_sample_that_no_double_holds_is_refused_by_its_value(self) -> None:
        body = bulk(impactMetrics=[NUMERIC]).replace(b'"value": 1', b'"value": 1e999')
        assert refusal(decode.bulk, body).check is Check.VALUE

    @pytest.mark.parametrize("sent", [None, "x", [1], {}, [{"name": "c"}]])
    def test_a_single_payload_may_hold_whatever_it_likes(self, sent: Any) -> None:
        assert decode.metrics(single({"yes": 1}, impactMetrics=sent)) == decode.metrics(single({"yes": 1}))


class TestSeenTokens:
    @pytest.mark.parametrize("sent", [[], [1], ["default:development.secret"], [{}, None]])
    def test_any_array_is_taken_and_forgotten(self, sent: Any) -> None:
        for body in (bulk(seenTokens=sent), bulk({**ENTRY, "yes": "1"}, seenTokens=sent)):
            taken = decode.bulk(body)
            assert "secret" not in repr(taken)
            assert b"secret" not in msgspec.json.encode(taken)

    @pytest.mark.parametrize("sent", [None, "default:development.secret", {"a": "default:development.secret"}, 1])
    def test_anything_else_is_refused_without_repeating_it(self, sent: Any) -> None:
        refused = refusal(decode.bulk, bulk(seenTokens=sent))
        assert (refused.check, refused.details[0].path) == (Check.SCHEMA, "/body/seenTokens")
        assert "secret" not in str(refused)

    def test_a_token_in_a_misplaced_object_is_not_repeated(self) -> None:
        holder = {"seenTokens": ["default:development.secret"]}
        for document in ([holder], {"applications": [holder]}, {"applications": holder}):
            assert "secret" not in str(refusal(decode.bulk, json.dumps(document).encode()))


class TestMalformed:
    @pytest.mark.parametrize(
        "body",
        [
            b" ", b"{", b'{"a"', b'{"a":1', b'{"a":1,}', b"{'a':1}", b'{"a":NaN}', b'{"a":Infinity}',
            b'{"a":-Infinity}', b'{"a":01}', b'{"a":"\x01"}', b'{"a":"\\x"}', b"{} {}", b"undefined", b"\x00",
            b"\xff\xfe", b"{\x0c}", b"[" * 200_000, b'{"a":' * 200_000,
            b'{"appName":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
        ids=range(20),
    )  # fmt: skip
    def test_what_is_not_json_is_called_so(self, body: bytes) -> None:
        for reader in (decode.metrics, decode.bulk, decode.registration):
            with pytest.raises(MalformedJsonError) as caught:
                reader(body)
            assert len(str(caught.value)) < 100

    def test_a_body_that_ends_early_is_told_so(self) -> None:
        with pytest.raises(MalformedJsonError, match="Unexpected end of JSON input"):
            decode.metrics(b'{"appName": "a", ')
        with pytest.raises(MalformedJsonError, match="Unexpected token in JSON at position 1"):
            decode.metrics(b"{x}")

    def test_a_byte_order_mark_and_broken_utf8_are_no_hindrance(self) -> None:
        assert decode.metrics(b"\xef\xbb\xbf" + single()) == decode.metrics(single())
        assert decode.metrics(b'{"appName":"a\xff\xed\xa0\x80b"}').app_name == "a" + "\ufffd" * 4 + "b"
