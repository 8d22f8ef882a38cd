"""What is asked of Kafka besides records: what the topic is like, its id, and why a broker cannot be reached."""

import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any, Final

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from schemas.kafka import KafkaSettings
from schemas.kafka_topic import SETTINGS, MissingTopicError, Topic, UnsafeTopicError
from schemas.urls import KafkaBroker

_TIMEOUT_MS: Final = 10_000
_CONNECT_MS: Final = 3_000
_UNKNOWN: Final = 3
_WRONG_USER: Final = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
)
_NAMES: Final = (*SETTINGS, "retention.bytes", "min.insync.replicas", "unclean.leader.election.enable")


class KafkaAwayError(Exception):
    """No broker answered as it should; says which and why."""


class KafkaRefusedError(KafkaAwayError):
    """A broker answers, but refuses the user, or is not trusted; says which setting to look at."""


@contextlib.asynccontextmanager
async def admin(broker: KafkaBroker, settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect a client for questions and changes.

    Raises:
        KafkaAwayError: no server could be reached.
        KafkaRefusedError: one could, and does not let us in.
    """
    client = AIOKafkaAdminClient(request_timeout_ms=_TIMEOUT_MS, **settings.client_options(broker))
    try:
        try:
            await client.start()
        except errors.KafkaError as error:
            raise await _away(broker, settings) from error
        yield client
    finally:
        await client.close()


async def why_away(broker: KafkaBroker, settings: KafkaSettings) -> str:
    """Say why the servers cannot be reached, one after another: aiokafka's own clients only log it."""
    return str(await _away(broker, settings))


async def _away(broker: KafkaBroker, settings: KafkaSettings) -> KafkaAwayError:
    options = settings.client_options(broker)
    reasons, refused = [], False
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers")):
        try:
            connection = await create_conn(host, port, request_timeout_ms=_CONNECT_MS, **options)
            try:
                await connection.send(MetadataRequest([]))  # without SASL, a broker that wants it hangs up only now
            finally:
                connection.close()
        except TimeoutError:
            reasons.append(f"{host}:{port} does not answer as a Kafka broker with {settings.kafka_security_protocol}")
        except (errors.KafkaConnectionError, ConnectionResetError) as error:
            reasons.append(f"{host}:{port} hangs up on {settings.kafka_security_protocol} ({_text(error)})")
        except _WRONG_USER as error:
            refused = True
            reasons.append(
                f"{host}:{port} refuses the user {settings.kafka_username!r} ({_refusal(error)}): see "
                "FLAGMETER_KAFKA_USERNAME, FLAGMETER_KAFKA_PASSWORD and FLAGMETER_KAFKA_SASL_MECHANISM"
            )
        except ssl.SSLCertVerificationError as error:
            refused = True
            reasons.append(f"{host}:{port} is not trusted ({error.verify_message}): see FLAGMETER_KAFKA_CA_FILE")
        except (errors.KafkaError, OSError) as error:  # refused, an unknown name, not TLS
            reasons.append(f"{host}:{port}: {_text(error)}")
        else:
            reasons.append(f"{host}:{port} answers now")
    kind = KafkaRefusedError if refused else KafkaAwayError
    return kind("Kafka cannot be reached: " + "; ".join(reasons))


async def look(client: AIOKafkaAdminClient, name: str) -> Topic:
    """Ask what a topic is like.

    Raises:
        MissingTopicError: there is none.
        UnsafeTopicError: we may not see it, or not read its settings.
        KafkaAwayError: no answer.
    """
    try:
        found = await _topic(client._client, name)  # noqa: SLF001 - the admin client gives no topic ids
        resource = ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(_NAMES, ""))
        (answer,) = await client.describe_configs([resource])
    except errors.TopicAuthorizationFailedError as error:
        raise UnsafeTopicError(f"the topic {name} cannot be seen: allow Describe on it") from error
    except (errors.KafkaError, TimeoutError) as error:
        raise KafkaAwayError(f"Kafka does not tell of the topic {name}: {_text(error)}") from error
    (described,) = answer.resources
    if described[0] == _UNKNOWN:
        raise _missing(name)
    if described[0]:
        raise UnsafeTopicError(
            f"the settings of the topic {name} cannot be read ({_text(_error(described[0]))}): allow "
            "DescribeConfigs on it"
        )
    settings = {entry[0]: entry[1] for entry in described[4]}
    return Topic(name, found.id, found.partitions, found.replication, settings)


async def topic_id(client: AIOKafkaClient, name: str) -> str:
    """Ask for a topic's id, a UUID.

    Raises:
        MissingTopicError: there is no such topic.
        aiokafka.errors.KafkaError: no answer.
    """
    return (await _topic(client, name)).id


class _Found:
    """A topic as Metadata tells of it."""

    def __init__(self, topic: tuple[Any, ...]) -> None:
        self.id = str(topic[2])
        self.partitions = len(topic[4])
        self.replication = min((len(partition[4]) for partition in topic[4]), default=0)


async def _topic(client: AIOKafkaClient, name: str) -> _Found:
    node = client.get_random_node()
    if node is None:
        raise errors.NodeNotReadyError("no broker is known")
    answer = await client.send(node, _TopicRequest(name))
    (topic,) = answer.topics
    if topic[0] == _UNKNOWN:
        raise _missing(name)
    if topic[0]:
        raise _error(topic[0])
    return _Found(topic)


def _missing(name: str) -> MissingTopicError:
    return MissingTopicError(f"there is no topic {name}: run `flagmeter migrate`")


def _error(code: int) -> Exception:
    kind: type[Exception] = errors.for_code(code)
    return kind()


def _refusal(error: Exception) -> str:
    """Write why a login failed; aiokafka puts no words into one of these errors."""
    return error.description if isinstance(error, errors.UnsupportedSaslMechanismError) else _text(error)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


# Metadata v12, the first version that takes and gives topic ids (KIP-516); aiokafka speaks up to v5.


class _Uuid:
    """16 bytes, big-endian."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))

    @classmethod
    def repr(cls, value: uuid.UUID) -> str:
        return str(value)


_TAGS: Final = ("tags", TaggedFields)


class _Numbers(CompactArray):
    def __init__(self) -> None:
        super().__init__(Int32)


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                _TAGS,
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", _Numbers()),
                        ("isr", _Numbers()),
                        ("offline", _Numbers()),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _MetadataRequest(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _TopicRequest(Request[_MetadataRequest]):
    API_KEY = 3

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        return request_struct_class([(uuid.UUID(int=0), self._name, {})], False, False, {})
