"""The hosts of a chain: one connection each, and one Server for each environment there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import fabric
    import invoke

    from tasks.engine.connection import Connection
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.ssh import Client, Target
    from tasks.engine.task import RemoteTask, Turn


def for_connections(config: invoke.Config) -> fabric.Config:
    """Clone a configuration into Fabric's, without what Paramiko read: OpenSSH knows aliases."""
    import fabric
    from paramiko import SSHConfig

    clone = config.clone(into=fabric.Config)
    clone._set(base_ssh_config=SSHConfig())
    return clone


def connection_to(target: Target, config: invoke.Config) -> Connection:
    """Return a connection that is not open yet."""
    from tasks.engine.connection import Connection

    return Connection(target, for_connections(config))


def server_at(
    connection: Connection, settings: Settings, client: Client, named: bool = False
) -> Server:
    """Return the Server of an environment; a rehearsal host goes by settings of its own.

    Of the operator's it takes the environment only where the command line has `named` it.
    """
    from tasks.engine.rehearsed import rehearsed
    from tasks.engine.server import Server

    own = rehearsed(connection.target.identity)
    if own is None:
        return Server(connection, settings, client, named=named)
    there = own.as_environment(settings) if named else own.settings
    return Server(connection, there, client, own.variables, rehearsal=True, named=named)


def server_on(host: str, settings: Settings, client: Client, config: invoke.Config) -> Server:
    """Return the Server of an environment that no task works on.

    Raises Exit where OpenSSH takes no such host.
    """
    return server_at(connection_to(client.target(host), config), settings, client)


class Hosts:
    """The hosts of a chain, and what its tasks are handed there.

    `tasks` are all there are, by name; `named` are the environments that the command line names.
    """

    def __init__(
        self,
        client: Client,
        config: invoke.Config,
        tasks: Mapping[str, RemoteTask] | None = None,
        named: Collection[str] = (),
    ) -> None:
        self._client, self._config = client, config
        self._tasks, self._named = tasks or {}, named
        self._connections: dict[str, Connection] = {}
        self._servers: dict[str, dict[str, Server]] = {}

    def reach(self, hosts: Sequence[str]) -> None:
        """Have connections to hosts made, none of them open yet.

        Raises Exit at the first that OpenSSH does not take.
        """
        new = [host for host in hosts if host not in self._connections]
        for host, target in zip(new, self._client.targets(new), strict=True):
            self._connections[host] = connection_to(target, self._config)

    def server(self, host: str, settings: Settings) -> Server:
        """Return the server of an environment; all those of a host share its connection.

        Raises Exit where OpenSSH takes no such host.
        """
        self.reach([host])
        there = self._servers.setdefault(host, {})
        if settings.label not in there:
            named = settings.label in self._named
            there[settings.label] = server_at(
                self._connections[host], settings, self._client, named
            )
        return there[settings.label]

    def turn_to(self, server: Server, turn: Turn) -> Connection:
        """Have tasks work on this server; returns what they get as `c`.

        What others changed on the host meanwhile is looked at again.
        """
        others = (other for other in self._servers[server.name].values() if other is not server)
        if any(other.changed for other in others):
            server.forget()
        connection = self._connections[server.name]
        connection._set(server=server, turn=turn, tasks=self._tasks)
        return connection

    def close(self) -> None:
        """Log out of every host that was reached."""
        for connection in self._connections.values():
            connection.close()
