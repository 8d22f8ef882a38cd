"""Set single settings of a topic and leave all others as they are: IncrementalAlterConfigs (KIP-339).

aiokafka speaks only its forerunner, which puts every setting that is not named back to its default.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

_SET: Final = 0


async def alter_topic(client: AIOKafkaClient, topic: str, settings: Mapping[str, str]) -> tuple[int, str]:
    """Set these settings of a topic.

    Returns:
        Kafka's error code, 0 where they are set, and its message.

    Raises:
        aiokafka.errors.KafkaError: no answer.
    """
    answer = await client.send(client.get_random_node(), _AlterRequest(topic, settings))
    ((code, message, _, _),) = answer.resources
    return code, message or ""


class _AlterResponseV0(Response):
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _AlterRequestV0(RequestStruct):
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _AlterResponseV0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                ("configs", Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8")))),
            ),
        ),
        ("validate_only", Boolean),
    )


class _AlterRequest(Request[_AlterRequestV0]):
    API_KEY = 44

    def __init__(self, topic: str, settings: Mapping[str, str]) -> None:
        self._resource: tuple[Any, ...] = (
            ConfigResourceType.TOPIC,
            topic,
            [(name, _SET, value) for name, value in settings.items()],
        )

    def build(self, request_struct_class: type[_AlterRequestV0]) -> _AlterRequestV0:
        return request_struct_class([self._resource], False)
