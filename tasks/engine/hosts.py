"""hosts: see the move list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramiko import SSHConfig

from tasks.engine import facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import fabric

    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.ssh import Client
    from tasks.engine.task import RemoteTask


def without_ssh(config: fabric.Config) -> fabric.Config:
    """Clone a configuration without what Paramiko read: OpenSSH answers for aliases."""
    clone = config.clone()
    clone._set(base_ssh_config=SSHConfig())
    return clone


def server_on(
    host: str, settings: Settings, client: Client, config: fabric.Config, named: bool = False
) -> Server:
    """Return a host's Server, not connected yet; a rehearsal host goes by settings of its own.

    Of the operator's it takes the environment only where the command line has `named` it.
    """
    from tasks.engine.connection import Connection
    from tasks.engine.rehearsed import rehearsed
    from tasks.engine.server import Server

    def managed_files(settings: Settings) -> list[str]:
        return facts.managed_files(settings) + facts.stream_files(settings)

    connection = Connection(client.target(host), without_ssh(config))
    own = rehearsed(connection.target.identity)
    if own is None:
        server = Server(connection, settings, client, managed_files)
    else:
        there = own.as_environment(settings) if named else own.settings
        server = Server(connection, there, client, managed_files, own.variables, True)
    server.named = named
    connection._set(server=server)
    return server


class Hosts:
    """The hosts of a chain: one connection each, and one Server for each environment there."""

    def __init__(
        self, client: Client, config: fabric.Config, tasks: Mapping[str, RemoteTask] | None = None
    ) -> None:
        self._client, self._config, self._tasks = client, config, tasks or {}
        self._servers: dict[str, dict[str, Server]] = {}

    def server(self, host: str, settings: Settings, named: bool) -> Server:
        """Return the server of an environment; all those of a host share its connection."""
        there = self._servers.setdefault(host, {})
        if settings.label not in there:
            server = server_on(host, settings, self._client, self._config, named)
            if first := next(iter(there.values()), None):
                server.connection = first.connection
            there[settings.label] = server
        there[settings.label].named |= named
        return there[settings.label]

    def turn_to(self, server: Server) -> None:
        """Have tasks work on this server; what others changed on the host is looked at again."""
        server.connection._set(server=server, tasks=self._tasks)
        others = (other for other in self._servers[server.name].values() if other is not server)
        if any(other.changed for other in others):
            server.forget()

    def close(self) -> None:
        for there in self._servers.values():
            next(iter(there.values())).connection.close()
