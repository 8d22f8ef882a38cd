"""The Unleash server behind the gateway, as it is configured: what is passed on to it, and what is mirrored."""

from ingest_gateway import mirror, passthrough
from ingest_gateway.config import Config
from ingest_gateway.meters import Meters
from ingest_gateway.mirror import Mirror
from ingest_gateway.passthrough import PassThrough
from ingest_gateway.unleash_server import UnleashServer


class Behind:
    """Both halves and the connections that they share; nothing where no server is configured. Make it in a loop."""

    def __init__(self, config: Config, meters: Meters) -> None:
        self.passing: PassThrough | None = None
        self.mirror: Mirror | None = None
        self._server: UnleashServer | None = None
        server = config.unleash
        if server is None:
            return
        self._server = UnleashServer(server, connect_seconds=config.unleash_connect_seconds)
        bounds = passthrough.Bounds(
            requests=config.unleash_max_requests,
            streams=config.unleash_max_streams,
            body_bytes=config.unleash_max_body_bytes,
            body_seconds=config.body_seconds,
            silent_seconds=config.unleash_silent_seconds,
        )
        self.passing = PassThrough(self._server, bounds, meters, frontend_api=config.frontend_api)
        if config.unleash_mirror:
            room = mirror.Bounds(
                posts=config.unleash_mirror_max_posts,
                bytes=config.unleash_mirror_max_bytes,
                connections=config.unleash_mirror_connections,
                seconds=config.unleash_mirror_seconds,
            )
            self.mirror = Mirror(self._server, room, meters)

    def end_streams(self) -> None:
        """End the streams that are open."""
        if self.passing is not None:
            self.passing.end_streams()

    async def emptied(self) -> None:
        """Wait until nothing is being passed on."""
        if self.passing is not None:
            await self.passing.emptied()

    def abandon(self) -> None:
        """Cut what is still being passed on."""
        if self.passing is not None:
            self.passing.abandon()

    async def close(self) -> None:
        """Send what the mirror holds, as far as it goes, and close the connections."""
        if self.mirror is not None:
            await self.mirror.close()
        if self._server is not None:
            await self._server.close()
