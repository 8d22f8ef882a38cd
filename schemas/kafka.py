"""How every service reaches Kafka: the settings of the connection, and what aiokafka's clients are given for them."""

import ssl
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from schemas.urls import KafkaBroker

GROUP: Final = "flagmeter.aggregator"
"""The consumer group of all aggregators."""

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The topic's `max.message.bytes`: above our largest body with its headers. One refusal by the broker for its size
would poison an idempotent producer."""

PRODUCE_BYTES: Final = 3 * 1024 * 1024 + 512 * 1024
"""Largest batch that the gateway sends to one partition: below `MAX_MESSAGE_BYTES`, above any single event."""

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSettings(BaseSettings):
    """What a service is told about the connection to Kafka, beside the broker's URL. Unused with an embedded broker."""

    kafka_security_protocol: Security = Field(
        "PLAINTEXT", description="How Kafka is reached: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`"
    )
    kafka_sasl_mechanism: Mechanism = Field(
        "SCRAM-SHA-512", description="How to log in at Kafka: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`"
    )
    kafka_username: str | None = Field(None, description="User at Kafka, with SASL")
    kafka_password: SecretStr | None = Field(None, description="The user's password at Kafka")
    kafka_ca_file: Path | None = Field(
        None, description="Certificates (PEM) that Kafka's is checked against. Unset: the system's"
    )
    kafka_cert_file: Path | None = Field(None, description="Our own certificate (PEM), where Kafka asks for one")
    kafka_key_file: Path | None = Field(None, description="The key of our own certificate (PEM)")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (self.kafka_username and self.kafka_password):
            raise ValueError(
                f"FLAGMETER_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs FLAGMETER_KAFKA_USERNAME and "
                "FLAGMETER_KAFKA_PASSWORD"
            )
        if (self.kafka_cert_file is None) != (self.kafka_key_file is None):
            raise ValueError("FLAGMETER_KAFKA_CERT_FILE and FLAGMETER_KAFKA_KEY_FILE belong together")
        if self._encrypted:
            _ = self._tls  # a wrong file is said at the start
        return self

    @property
    def _encrypted(self) -> bool:
        return self.kafka_security_protocol.endswith("SSL")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.kafka_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"FLAGMETER_KAFKA_CA_FILE cannot be read: {error}") from error
        if self.kafka_cert_file is not None:
            try:
                context.load_cert_chain(self.kafka_cert_file, self.kafka_key_file)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(
                    f"FLAGMETER_KAFKA_CERT_FILE and FLAGMETER_KAFKA_KEY_FILE cannot be used: {error}"
                ) from error
        return context

    def client_options(self, broker: KafkaBroker) -> dict[str, Any]:
        """Give the arguments that every client of aiokafka takes alike."""
        options: dict[str, Any] = {
            "bootstrap_servers": list(broker.servers),
            "security_protocol": self.kafka_security_protocol,
        }
        if self._encrypted:
            options["ssl_context"] = self._tls
        if self.kafka_security_protocol.startswith("SASL") and self.kafka_password is not None:
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"] = self.kafka_username
            options["sasl_plain_password"] = self.kafka_password.get_secret_value()
        return options
