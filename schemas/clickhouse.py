"""How every service reaches ClickHouse: TLS beside the URL, what clients are given for it, and whose fault it is."""

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from schemas import urls
from schemas.urls import ClickHouse

WRONG_USER: Final = frozenset({192, 193, 194, 516})
"""ClickHouse's codes: unknown user, wrong password, missing password, authentication failed."""


class ClickHouseSettings(BaseSettings):
    """What a service is told about TLS, beside ClickHouse's URL. Unused with an `http://` one."""

    clickhouse_ca_file: Path | None = Field(
        None, description="Certificates (PEM) to trust where ClickHouse's is not signed by one of the system's"
    )
    clickhouse_cert_file: Path | None = Field(
        None,
        description="Our own certificate (PEM), where ClickHouse asks for one; without a password, it is the login",
    )
    clickhouse_key_file: Path | None = Field(None, description="The key of our own certificate (PEM)")

    @model_validator(mode="after")
    def _usable_for_clickhouse(self) -> Self:
        """Say at the start which file is wrong."""
        if (self.clickhouse_cert_file is None) != (self.clickhouse_key_file is None):
            raise ValueError("FLAGMETER_CLICKHOUSE_CERT_FILE and FLAGMETER_CLICKHOUSE_KEY_FILE belong together")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.clickhouse_ca_file is not None:
            try:
                context.load_verify_locations(self.clickhouse_ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise ValueError(f"FLAGMETER_CLICKHOUSE_CA_FILE cannot be read: {error}") from error
        if self.clickhouse_cert_file is not None:
            try:
                context.load_cert_chain(self.clickhouse_cert_file, self.clickhouse_key_file)
            except OSError as error:
                raise ValueError(
                    f"FLAGMETER_CLICKHOUSE_CERT_FILE and FLAGMETER_CLICKHOUSE_KEY_FILE cannot be used: {error}"
                ) from error
        return self

    def clickhouse(self, url: SecretStr | str) -> ClickHouse:
        """Read a URL, and put the TLS files beside it.

        Raises:
            ValueError: says what is wrong with the URL.
        """
        return replace(
            urls.parse_clickhouse(url if isinstance(url, str) else url.get_secret_value()),
            ca_file=self.clickhouse_ca_file,
            cert_file=self.clickhouse_cert_file,
            key_file=self.clickhouse_key_file,
        )


def client_options(server: ClickHouse) -> dict[str, Any]:
    """Give the arguments that every client of clickhouse-connect takes alike, the database excepted."""
    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "interface": "https" if server.secure else "http",
        "username": server.user or None,
        "password": server.password,
    }
    if server.secure and server.ca_file is not None:
        options["ca_cert"] = str(server.ca_file)
    if server.secure and server.cert_file is not None:
        options["client_cert"] = str(server.cert_file)
        options["client_cert_key"] = str(server.key_file)
        # `mutual` logs in by the certificate's name and sends no password; `strict` logs in as without one.
        options["tls_mode"] = "mutual" if server.user and not server.password else "strict"
    return options


def wrong_setting(error: BaseException) -> str | None:
    """Say which setting an error speaks of, without address or secret; None where it speaks of none."""
    if getattr(error, "code", None) in WRONG_USER:
        return "the store refuses the user: see user and password in FLAGMETER_CLICKHOUSE_URL"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the store's certificate is not trusted: see FLAGMETER_CLICKHOUSE_CA_FILE"
        if type(cause) is ssl.SSLError:  # those derived from it are connections that broke
            return "the store refuses our TLS: see FLAGMETER_CLICKHOUSE_URL and FLAGMETER_CLICKHOUSE_CERT_FILE"
        cause = cause.__cause__ or cause.__context__
    return None
