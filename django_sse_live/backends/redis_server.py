"""RedisServer: from a URL to connections. The only file that knows how redis-py makes them.

Connections are used bare, without redis-py's clients: what is sent, when it is given up and when it is sent again is
decided by those who use them, since a repeated XADD is a doubled event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured

try:
    import redis
    import redis.asyncio
    from redis.exceptions import RedisClusterException, RedisError
except ImportError as _error:
    raise ImproperlyConfigured(
        f'RedisStreamsBackend needs redis-py ({_error}). Install it: pip install "django-sse-live[redis]".'
    ) from _error

# What a server that is away, paused, loading, full, failing over or wrongly configured raises in redis-py.
UNAVAILABLE: Final = (RedisError, RedisClusterException, OSError)

CONNECT_SECONDS: Final = 2.0
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
EXAMPLES: Final = (
    '"redis://localhost:6379/0", "rediss://user:password@host:6380/0", "unix:///run/redis.sock", '
    '"redis+sentinel://host1:26379,host2:26379/mymaster" or "redis+cluster://host1:6379,host2:6379"'
)

Address = tuple[str, int]
Command = Sequence[Any]
Connection = Any  # of redis-py, sync or async; which of them, the method that made it says


class RedisServer:
    """Where the stream lives. Touches the network only in connect() and aconnect(). From any thread."""

    def __init__(self, url: Any, key: str, *, option: str = "URL") -> None:
        self._option = option  # of OPTIONS, for whoever reads the error
        self._key = key  # in a cluster, the server is the one that has this key
        match = re.match(r"(rediss?|unix|redis\+sentinel|rediss\+sentinel|redis\+cluster|rediss\+cluster)://", str(url))
        if not isinstance(url, str) or match is None:
            raise self._bad_url(url)
        scheme, _, kind = match[1].partition("+")
        self._kind: str = kind  # "", "sentinel" or "cluster"
        self._sentinels: list[Address] = []
        self._sentinel_options: dict[str, Any] = {}
        self._named: list[Address] = []  # the cluster's nodes of the URL
        self._nodes: list[Address] = []  # and those that were there last
        try:
            parts = urlsplit(url)
            if self._kind == "sentinel":
                self._url = self._read_sentinel_url(scheme, parts)
            elif self._kind == "cluster":
                credentials, at, hosts = parts.netloc.rpartition("@")
                self._nodes = self._named = _read_hosts(hosts, REDIS_PORT)
                self._url = f"{scheme}://{credentials}{at}{hosts.split(',')[0]}?{_our_query(parts.query)}"
            else:
                self._url = f"{scheme}://{parts.netloc}{parts.path}?{_our_query(parts.query)}"
            self._make(redis.ConnectionPool, None, CONNECT_SECONDS)
        except (ValueError, TypeError) as error:
            raise self._bad_url(url, error) from error

    def __str__(self) -> str:
        """Where it is, without a password."""
        parts = urlsplit(self._url)
        addresses = self._sentinels or self._named
        where = ",".join(f"{host}:{port}" for host, port in addresses) or parts.netloc.rpartition("@")[2]
        return where or parts.path

    @property
    def may_move(self) -> bool:
        """Whether another server may become the right one while the old one still answers."""
        return self._kind == "sentinel"

    def connect(self, timeout: float) -> Connection:
        """A connection, connected. Raises one of UNAVAILABLE."""
        connection = self._make(redis.ConnectionPool, self._address(timeout), timeout)
        connection.connect()
        return connection

    async def aconnect(self, timeout: float) -> Connection:
        """The same for the running loop; each answer on it is awaited for ``timeout`` seconds."""
        connection = self._make(redis.asyncio.ConnectionPool, await self._aaddress(timeout), timeout)
        await connection.connect()
        return connection

    async def has_moved(self, connection: Connection) -> bool:
        """Whether Sentinel has made another server the master than the one of this connection."""
        return self.may_move and (connection.host, connection.port) != await self._aaddress(CONNECT_SECONDS)

    def _bad_url(self, url: object, error: Exception | None = None) -> ImproperlyConfigured:
        shown = re.sub(r"//[^/]*@", "//…@", str(url))
        because = f" ({error})" if error else ""
        return ImproperlyConfigured(
            f'SSE_LIVE["OPTIONS"]["{self._option}"] is {shown!r}{because}; it must be a URL such as {EXAMPLES}.'
        )

    def _read_sentinel_url(self, scheme: str, parts: Any) -> str:
        """``redis+sentinel://user:password@host:port,host:port/name?db=0``: credentials and database are the master's;
        those of the Sentinels are ``sentinel_username`` and ``sentinel_password`` in the query. TLS, and the query's
        ``ssl_…``, hold for both."""
        credentials, at, hosts = parts.netloc.rpartition("@")
        self._sentinels = _read_hosts(hosts, SENTINEL_PORT)
        self._master = unquote(parts.path.strip("/"))
        if not self._master or not self._sentinels[0][0]:
            raise ValueError("the Sentinels' hosts and the master's name are needed")
        query = dict(parse_qsl(parts.query))
        if scheme == "rediss":
            given = redis.ConnectionPool.from_url(f"rediss://sentinel?{urlencode(query)}").connection_kwargs
            self._sentinel_options = {name: value for name, value in given.items() if name.startswith("ssl_")}
            self._sentinel_options["ssl"] = True
        for option in ("username", "password"):
            if f"sentinel_{option}" in query:
                self._sentinel_options[option] = query.pop(f"sentinel_{option}")
        return f"{scheme}://{credentials}{at}sentinel?{_our_query(urlencode(query))}"

    def _make(self, pool_class: Any, address: Address | None, timeout: float) -> Connection:
        # RESP2: answers of one shape, whatever the version of server and library.
        pool = pool_class.from_url(
            self._url, protocol=2, socket_timeout=timeout, socket_connect_timeout=min(timeout, CONNECT_SECONDS)
        )
        if address is not None:
            pool.connection_kwargs["host"], pool.connection_kwargs["port"] = address
        return pool.make_connection()

    def _address(self, timeout: float) -> Address | None:
        if self._kind == "sentinel":
            return self._sentinel(redis.Sentinel, timeout).discover_master(self._master)  # type: ignore[no-any-return]
        if self._kind == "cluster":
            node: Any = redis.cluster.ClusterNode
            nodes = [node(*address) for address in self._nodes]
            cluster: Any = redis.RedisCluster.from_url(self._url, startup_nodes=nodes, socket_timeout=timeout)
            try:
                return self._of_cluster(cluster)
            finally:
                cluster.close()
        return None

    async def _aaddress(self, timeout: float) -> Address | None:
        if self._kind == "sentinel":
            sentinel = self._sentinel(redis.asyncio.Sentinel, timeout)
            try:
                return await sentinel.discover_master(self._master)  # type: ignore[no-any-return]
            finally:
                for client in sentinel.sentinels:
                    await client.aclose()
        if self._kind == "cluster":
            nodes = [redis.asyncio.cluster.ClusterNode(*address) for address in self._nodes]
            cluster = redis.asyncio.RedisCluster.from_url(self._url, startup_nodes=nodes, socket_timeout=timeout)
            try:
                await cluster.initialize()
                return self._of_cluster(cluster)
            finally:
                await cluster.aclose()
        return None

    def _sentinel(self, sentinel_class: Any, timeout: float) -> Any:
        return sentinel_class(
            self._sentinels,
            sentinel_kwargs={"socket_timeout": timeout, **self._sentinel_options},
            socket_timeout=timeout,
        )

    def _of_cluster(self, cluster: Any) -> Address:
        """Where the key lives; and the cluster's nodes are remembered, since those of the URL may be gone one day."""
        node = cluster.get_node_from_key(self._key)
        if node is None:
            raise redis.ConnectionError(f"No server of the cluster has the slot of {self._key!r}.")
        self._nodes = list(
            dict.fromkeys([*self._named, *((each.host, int(each.port)) for each in cluster.get_nodes())])
        )
        return node.host, int(node.port)


def _read_hosts(hosts: str, port: int) -> list[Address]:
    """``host:1,[::1]:2,host``: the last with the port given here."""
    parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
    return [(part.hostname or "", part.port or port) for part in parts]


def _our_query(query: str) -> str:
    """A URL's query without what is decided here, and would be overruled by it."""
    ours = {"protocol", "decode_responses", "health_check_interval", "socket_timeout", "socket_connect_timeout"}
    return urlencode([(name, value) for name, value in parse_qsl(query) if name not in ours])


def ask(connection: Connection, commands: Iterable[Command]) -> list[Any]:
    """Send commands in one go and read their answers, each within the connection's timeout. Raises one of UNAVAILABLE,
    or the first error that is an answer; the connection is of no more use then."""
    commands = list(commands)
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [connection.read_response() for _ in commands]


async def aask(connection: Connection, commands: Iterable[Command]) -> list[Any]:
    """ask() for a connection of aconnect()."""
    commands = list(commands)
    await connection.send_packed_command(b"".join(connection.pack_commands(commands)), check_health=False)
    return [await connection.read_response() for _ in commands]


def transaction(*commands: Command) -> list[Command]:
    """All of them or none, with nobody else's between them. The answers are the last one's."""
    return [("MULTI",), *commands, ("EXEC",)]


def wait_at_most(connection: Connection, seconds: float) -> None:
    """How long each read and write on a connection of connect() may take from now on."""
    connection._sock.settimeout(seconds)
