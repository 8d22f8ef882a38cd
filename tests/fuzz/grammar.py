"""Bodies from a grammar of what SDKs and Edges send, bent in the tree, in the text and in the bytes."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from schemas.event import Kind

T = TypeVar("T")


class Members(list[tuple[str, Any]]):
    """An object as it is written: in the order of its members, and a name may come twice."""


class Raw(bytes):
    """JSON, or what somebody takes for it, written as it stands."""


NUMBERS: Final = tuple(
    map(
        Raw,
        (
            *(b"0 -0 -1 0.5 1.5 -0.5 1e3 1E+3 1e-400 1e400 -1e400 1.0 3600000 1795306200000 4294967296".split()),
            *(b"9007199254740991 9007199254740992 9007199254740993 -9007199254740993 9223372036854775808".split()),
            *(b"18446744073709551615 18446744073709551616 8640000000000000 8640000000000001 -2208988800001".split()),
            *(b"NaN Infinity -Infinity 01 1. .5 +1 0x10 1_000 1e 1e+ - --1 true false null nul".split()),
            b"9" * 400,
            b"9" * 5000,
            b"0." + b"0" * 400 + b"1",
            b"1" + b"0" * 400,
            b"1e" + b"9" * 50,
        ),
    )
)
DATES: Final = (
    *("2026-11-22T12:00:00Z", "2026-11-22T12:00:00.000Z", "2026-11-22T12:00:00.123456789Z", "2026-11-22 12:00:00"),
    *("2026-11-22t12:00:00z", "2026-11-22T12:00:00+0530", "2026-11-22T12:00:00-23:59", "2026-11-22T12:00:00+24:00"),
    *("2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2026-11-22T24:00:00Z", "2016-12-31T23:59:60Z", "2026-W47-7"),
    *("0000-01-01T00:00:00Z", "0000-02-29T00:00:00Z", "9999-12-31T23:59:59.999Z", "1899-12-31T23:59:59Z", "now", ""),
    *("2300-01-01T00:00:00Z", "2299-12-31T23:59:59Z", "+02026-11-22T12:00:00Z", "2026-13-01T00:00:00Z", "2026-11-22"),
    *("1795306200000", " 15 ", "1e3", "-1", "8.64e15", "8640000000000001", "1.5", "\u0662\u0660\u0662\u0666", "0x10"),
    *("2026-11-22T12:00:00." + "9" * 40 + "Z", "9" * 64, "9" * 5000 + "x", "1e" + "9" * 40, "2026-11-22T12:00:00\0Z"),
)
TEXTS: Final = (
    *("", " ", "a", "shop", "default", "development", "frontend", "backend", "counter", "gauge", "histogram", "+Inf"),
    *(
        "3",
        "1.5",
        "1e400",
        "-1",
        "true",
        "null",
        "NaN",
        "Infinity",
        "__batch__",
        "__proto__",
        "constructor",
        "toString",
    ),
    *(
        "\0",
        "nul\0",
        "\ud800",
        "\udfff\ud800",
        "\U0001f600",
        "\u202eabc\u202c",
        "\ufeff",
        "\u0085",
        "\u2028",
        "\x1b[2J",
    ),
    *("x" * 255, "x" * 256, "\U0001f600" * 255, "\u00e9" * 256, "e\u0301", "\uffff", "a/b~c", '"', "\\", "\\u0000"),
    *("x" * 32, "x" * 33, "x" * 257, "1" * 3000 + "x", " " * 3000, "." + "1" * 3000, "'; DROP TABLE evaluations; --"),
)
NAMES: Final = (
    *("appName", "instanceId", "environment", "connectionId", "sdkVersion", "platformName", "bucket", "start", "stop"),
    *("toggles", "yes", "no", "variants", "metrics", "applications", "impactMetrics", "seenTokens", "featureName"),
    *("timestamp", "interval", "started", "strategies", "type", "name", "help", "samples", "value", "labels", "le"),
    *("count", "sum", "buckets", "projects", "connectVia", "sdkType", "sdkFlavor", "sdkFlavorVersion", "specVersion"),
)
_SPLICES: Final = (
    *(b'"', b"\\", b"\\ud800", b"\\u0000", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf"),
    *(b"NaN", b"{", b"}", b"[", b"]", b",", b":", b"1e999", b"-", b"null", b"\0", b"\x7f", b" ", b"\r\n", b"//", b"0"),
    *(b'"yes":1,', b'"seen\\u0054okens":["x"],', b'"appName":null,', b"[" * 300, b'{"a":' * 300, b"9" * 400),
)
MOST_NESTED: Final = 3000
_LARGE: Final = 6000
"""One input in so many is of hundreds of kilobytes."""


class Grammar:
    """Makes bodies by a seeded chance; the same seed gives the same bodies."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._trees: dict[Kind, Callable[[], Members]] = {
            Kind.METRICS: self._metrics,
            Kind.BULK: self._bulk,
            Kind.REGISTER: self._registration,
        }

    def body(self, kind: Kind) -> bytes:
        """Make a body of this kind: honest, bent a little, or broken."""
        rng = self._rng
        if rng.randrange(_LARGE) == 0:
            return self._large(kind)
        tree = self._trees[kind]()
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            self._bend(tree)
        body = self.write(tree)
        return body if rng.random() < 0.7 else self.damage(body)

    def damage(self, body: bytes) -> bytes:
        """Break a body in its bytes."""
        rng = self._rng
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(7):
                case 0:
                    body = body[:at]
                case 1 if at < len(body):
                    body = body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]
                case 2:
                    body = body[:at] + rng.choice(_SPLICES) + body[at:]
                case 3:
                    body = body[:at] + body[at + rng.randrange(1, 9) :]
                case 4:
                    piece = body[at : at + rng.randrange(1, 60)]
                    body = body[:at] + piece * rng.choice((2, 2, 3, 40)) + body[at:]
                case 5:
                    body = body[:at] + rng.randbytes(rng.randrange(1, 9)) + body[at:]
                case _:
                    other = rng.randrange(len(body) + 1)
                    body = body[:at] + body[min(at, other) : max(at, other)] + body[other:]
            body = body[: 1 << 18]
        return body

    def write(self, tree: Any) -> bytes:
        """Write a tree as JSON; now and then with escapes and white space that nobody needs."""
        out: list[bytes] = []
        self._write(tree, out, odd=self._rng.random() < 0.15)
        return b"".join(out)

    def _write(self, tree: Any, out: list[bytes], *, odd: bool) -> None:
        match tree:
            case Raw():
                out.append(tree)
            case Members():
                out.append(b"{")
                for at, (name, value) in enumerate(tree):
                    out.append(b"," if at else b"")
                    self._text(name, out, odd=odd)
                    out.append(b" :\n" if odd else b":")
                    self._write(value, out, odd=odd)
                out.append(b"}")
            case list():
                out.append(b"[")
                for at, value in enumerate(tree):
                    out.append(b"\t," if odd and at else b"," if at else b"")
                    self._write(value, out, odd=odd)
                out.append(b"]")
            case str():
                self._text(tree, out, odd=odd)
            case _:
                out.append(json.dumps(tree).encode())

    def _text(self, text: str, out: list[bytes], *, odd: bool) -> None:
        if odd and len(text) < 50:
            escaped = "".join(
                rf"\u{ord(sign):04x}" if ord(sign) < 0x10000 and self._rng.random() < 0.4 else sign for sign in text
            )
            if '"' not in text and "\\" not in text:
                out.append(b'"' + escaped.encode("utf-8", "surrogatepass") + b'"')
                return
        out.append(json.dumps(text, ensure_ascii=self._rng.random() < 0.5).encode("utf-8", "surrogatepass"))

    # Trees ------------------------------------------------------------------------------------------------------------

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.random() * len(choices))]

    def _some(self, *optional: tuple[str, Callable[[], Any]]) -> Members:
        return Members((name, make()) for name, make in optional if self._rng.random() < 0.4)

    def _text_of(self) -> str:
        return self._pick(TEXTS) if self._rng.random() < 0.3 else f"n{self._rng.randrange(50)}"

    def _filled(self) -> str:
        return self._text_of() or "shop"

    def _maybe(self) -> str | None:
        return None if self._rng.random() < 0.2 else self._text_of()

    def _count(self) -> Any:
        rng = self._rng
        if rng.random() < 0.08:
            return self._pick(NUMBERS)
        return rng.randrange(10) if rng.random() < 0.9 else rng.randrange(2**53)

    def _number(self) -> Any:
        return self._pick(NUMBERS) if self._rng.random() < 0.2 else self._pick((0, 1, 0.5, -1, 1e300, 2**60))

    def _date(self) -> Any:
        chance = self._rng.random()
        if chance < 0.5:
            return "2026-11-22T12:00:00Z"
        if chance < 0.85:
            return self._pick(DATES)
        return self._rng.randrange(-(2**52), 2**52) if chance < 0.95 else self._pick(NUMBERS)

    def _mapping(self, make: Callable[[], Any]) -> Members:
        return Members((self._text_of(), make()) for _ in range(self._rng.randrange(4)))

    def _list(self, make: Callable[[], Any], most: int = 4) -> list[Any]:
        return [make() for _ in range(self._rng.randrange(most))]

    def _sdk(self) -> Members:
        names = ("instanceId", "environment", "connectionId", "platformName", "platformVersion", "yggdrasilVersion")
        found = self._some(*((name, self._maybe) for name in (*names, "specVersion", "sdkFlavor", "sdkFlavorVersion")))
        return Members(found[:4])

    def _toggle(self) -> Members:
        variants = self._mapping(self._count) if self._rng.random() < 0.8 else None
        return self._some(("yes", self._count), ("no", self._count), ("variants", lambda: variants))

    def _metrics(self) -> Members:
        bucket = Members([("start", self._date()), ("stop", self._date()), ("toggles", self._mapping(self._toggle))])
        rest = self._some(("sdkVersion", self._maybe), ("impactMetrics", lambda: self._list(self._impact)))
        shown: Any = bucket if self._rng.random() < 0.93 else None
        return Members([("appName", self._filled()), *self._sdk(), ("bucket", shown), *rest])

    def _registration(self) -> Members:
        fixed = [("appName", self._filled()), ("interval", self._number()), ("started", self._date())]
        strategies = self._list(lambda: self._text_of() if self._rng.random() < 0.9 else self._number())
        rest = self._some(("sdkVersion", self._maybe), ("seenTokens", self._tokens))
        return Members([*fixed, ("strategies", strategies), *self._sdk(), *rest])

    def _tokens(self) -> list[str]:
        return self._list(lambda: "default:development.secret")

    def _entry(self) -> Members:
        fixed = [("featureName", self._text_of()), ("appName", self._text_of()), ("environment", self._filled())]
        return Members(
            fixed
            + self._some(
                ("timestamp", self._date),
                ("yes", self._count),
                ("no", self._count),
                ("variants", lambda: self._mapping(self._count)),
                ("sdkType", lambda: self._pick(("frontend", "backend", None, "x"))),
                ("platformName", self._maybe),
            )
        )

    def _application(self) -> Members:
        via = lambda: Members([("appName", self._text_of()), ("instanceId", self._text_of())])  # noqa: E731
        fixed = [("appName", self._text_of()), ("interval", self._number()), ("started", self._date())]
        return Members(
            fixed
            + self._some(
                ("strategies", lambda: self._list(self._text_of)),
                ("projects", lambda: self._list(self._text_of)),
                ("connectVia", lambda: self._list(via)),
                ("sdkType", lambda: self._pick(("frontend", "backend", None))),
                ("sdkVersion", self._maybe),
            )
        )

    def _impact(self) -> Members:
        kind = self._pick(("counter", "gauge", "histogram", "histogram", "summary"))
        labels = ("labels", lambda: self._mapping(self._text_of))
        bound = lambda: "+Inf" if self._rng.random() < 0.3 else self._number()  # noqa: E731
        if kind == "histogram":
            bucket = lambda: Members([("le", bound()), ("count", self._count())])  # noqa: E731
            sample = lambda: Members(  # noqa: E731
                [("count", self._count()), ("sum", self._number()), ("buckets", self._list(bucket))]  # noqa: RUF005
                + self._some(labels)
            )
        else:
            sample = lambda: Members([("value", self._number()), *self._some(labels)])  # noqa: E731
        return Members(
            [("name", self._text_of()), ("help", self._text_of()), ("type", kind), ("samples", self._list(sample))]
        )

    def _bulk(self) -> Members:
        fixed = [("applications", self._list(self._application, 3)), ("metrics", self._list(self._entry))]
        return Members(
            fixed + self._some(("impactMetrics", lambda: self._list(self._impact)), ("seenTokens", self._tokens))
        )

    # Mutations --------------------------------------------------------------------------------------------------------

    def _bend(self, tree: Members) -> None:
        """Change one place somewhere in the tree."""
        node: Any = tree
        while isinstance(node, list) and node:
            at = self._rng.randrange(len(node))
            below = node[at][1] if isinstance(node, Members) else node[at]
            if not (isinstance(below, list) and below) or self._rng.random() < 0.3:
                break
            node = below
        if isinstance(node, Members):
            self._bend_members(node)
        elif isinstance(node, list):
            node.insert(self._rng.randrange(len(node) + 1), self._wild())

    def _bend_members(self, node: Members) -> None:
        rng = self._rng
        at = rng.randrange(len(node) + 1)
        match rng.randrange(6):
            case 0 if node:
                del node[at % len(node)]
            case 1 if node:
                node.insert(at, node[rng.randrange(len(node))])
            case 2:
                node.insert(at, (self._pick(NAMES), self._wild()))
            case 3 if node:
                node[at % len(node)] = (self._pick(TEXTS), node[at % len(node)][1])
            case 4 if node:
                rng.shuffle(node)
            case _ if node:
                node[at % len(node)] = (node[at % len(node)][0], self._wild())

    def _wild(self) -> Any:
        rng = self._rng
        match rng.randrange(9):
            case 0:
                return self._pick((None, True, False, [], Members(), [[]], Members([("", None)])))
            case 1 | 2:
                return self._pick(NUMBERS)
            case 3 | 4:
                return self._pick(TEXTS)
            case 5:
                return self._pick(DATES)
            case 6:
                return self._list(self._wild, 3)
            case 7:
                return self._mapping(self._wild)
        depth = rng.choice((2, 20, 200, MOST_NESTED))
        opened, closed = self._pick(((b"[", b"]"), (b'{"a":', b"}")))
        return Raw(opened * depth + rng.choice((b"", b"1")) + closed * rng.choice((depth, depth, depth - 1)))

    def _large(self, kind: Kind) -> bytes:
        """Make a body that is large in one way: members, digits, text, nesting or duplicates."""
        rng = self._rng
        count = rng.choice((1_000, 20_000))
        parts: tuple[Callable[[int], bytes], ...] = (
            lambda at: b'"f%x":{"yes":1}' % at,
            lambda at: b'"f%x":{"yes":"1"}' % at,
            lambda at: b'"f%x":{"yes":1e400}' % at,
            lambda at: b'"\\u0000%x":{"no":1}' % at,
            lambda at: b'"same":{"yes":%d}' % at,
            lambda at: b'"":{"variants":{"%x":1,"\\ud800":%d}}' % (at, at),
        )
        toggles = b",".join(map(self._pick(parts), range(count)))
        single = b'{"appName":"a","bucket":{"start":0,"stop":"2026-11-22T12:00:00Z","toggles":{' + toggles + b"}}}"
        if kind is Kind.METRICS and rng.random() < 0.6:
            return single
        if kind is Kind.BULK and rng.random() < 0.6:
            entry = b'{"featureName":"f%x","appName":"a","environment":"%s","timestamp":%s,"yes":%s}'
            when = rng.choice((b'"2026-11-22T12:00:00Z"', b"%d"))
            many = (
                entry % (at, rng.choice((b"development", b"other", b"")), when.replace(b"%d", b"%d" % at), b"1")
                for at in range(count // 4)
            )
            return b'{"applications":[],"metrics":[' + b",".join(many) + b"]}"
        long = rng.choice((b"1", b" ", b"\\u0000", b"x", b"\xf0\x9f\x98\x80", b"1e", b".", b"\\ud800", b"[")) * (
            count * 5
        )
        at = rng.choice((b"appName", b"started", b"interval", b"start", b"sdkFlavor", b"seenTokens"))
        quoted = rng.choice((b'"%sx"', b'"%s"', b"%s", b"[%s]")) % long
        head = b'{"applications":[],"metrics":[],"appName":"a","interval":1,"strategies":[],"started":0,'
        bucket = b'"bucket":{"start":%s,"stop":0,"toggles":{"f":{"yes":%s}}},' % (quoted, quoted)
        return head + (bucket if rng.random() < 0.5 else b"") + b'"' + at + b'":' + quoted + b"}"
