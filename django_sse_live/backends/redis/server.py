"""RedisServer: from a URL to redis-py's clients. Only this file knows how they are made.

A client belongs to one server and never retries: its users decide what is sent again, since a repeated XADD is a second
event. Sentinels and clusters are asked when a client is made.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured

from ...conf import option_place, without_passwords

try:
    import redis
    import redis.asyncio
    import redis.asyncio.sentinel
    import redis.sentinel
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisClusterException, RedisError
    from redis.retry import Retry
except ImportError as _error:
    raise ImproperlyConfigured(
        f'RedisStreamsBackend needs redis-py ({_error}). Install it: pip install "redis>=5.0.1".'
    ) from _error

logger: logging.Logger = logging.getLogger("django_sse_live")

# Raised by redis-py for a server that is away, paused, loading, full, failing over or wrongly configured.
UNAVAILABLE: Final = (RedisError, RedisClusterException, OSError)

CONNECT_SECONDS: Final = 2.0
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
EXAMPLES: Final = (
    '"redis://localhost:6379/0", "rediss://user:password@host:6380/0", "unix:///run/redis.sock", '
    '"redis+sentinel://host1:26379,host2:26379/mymaster" or "redis+cluster://host1:6379,host2:6379"'
)
# Options of a URL's query that may not be set, since they are set here.
OWN_OPTIONS: Final = frozenset(
    {
        *("protocol", "decode_responses", "health_check_interval", "socket_timeout", "socket_connect_timeout"),
        *("retry_on_timeout", "retry_on_error", "single_connection_client"),
    }
)

Address = tuple[str, int]
Client = Any  # redis.Redis or redis.asyncio.Redis, depending on the method that made it
Result = TypeVar("Result")


class RedisServer:
    """Where the stream is. Only methods that say so use the network. From any thread."""

    def __init__(self, url: Any, key: str, *, option: str = "URL") -> None:
        self._option = option  # the key of OPTIONS, for error messages
        self._key = key  # in a cluster, the server is the one with this key
        match = re.match(r"(rediss?|unix|rediss?\+sentinel|rediss?\+cluster)://([^/?#]*)(.*)", str(url), re.DOTALL)
        if not isinstance(url, str) or match is None:
            raise self._bad_url(url)
        scheme, _, kind = match[1].partition("+")
        self._scheme: str = scheme
        self._kind: str = kind  # "", "sentinel" or "cluster"
        self._nodes: list[Address] = []  # of a cluster, as last seen
        try:
            # urlsplit() cannot parse several hosts.
            parts = urlsplit(f"{scheme}://host{match[3]}")
            query = [(name, value) for name, value in parse_qsl(parts.query) if name not in OWN_OPTIONS]
            self._credentials, at, self._where = str(match[2]).rpartition("@")
            self._credentials += at
            self._path: str = parts.path
            port = SENTINEL_PORT if self._kind == "sentinel" else REDIS_PORT
            self._hosts: list[Address] = _read_hosts(self._where, port) if self._kind else []
            # In the order in which they are asked: the one that answered last goes first, since each that is silent
            # costs CONNECT_SECONDS.
            self._sentinels: list[Address] = self._hosts
            if self._kind == "sentinel":
                self._path, query = self._read_sentinel_url(query)
            self._query = urlencode(query)
            redis.ConnectionPool.from_url(self._url(("host", 1) if self._kind else None)).make_connection()
        except (ValueError, TypeError) as error:
            raise self._bad_url(url, error) from None  # its own text would stand in a traceback

    def __str__(self) -> str:
        """The address, without a password."""
        return ",".join(f"{host}:{port}" for host, port in self._hosts) or self._where or self._path

    @property
    def may_move(self) -> bool:
        """Whether another server may take over while this one still answers."""
        return self._kind == "sentinel"

    def connect(self, answer_seconds: float) -> Client:
        """A connected client of one connection, with this timeout for each answer. Raises one of UNAVAILABLE."""
        address = self.address() if self._kind else None
        return redis.Redis.from_url(
            self._url(address), **_options(answer_seconds, Retry), single_connection_client=True
        )

    async def aconnect(self, answer_seconds: float, when_connected: Callable[[], None] | None = None) -> Client:
        """The asyncio client for the running loop. It connects on first use, and again if its connection is found
        closed before a command; ``when_connected`` is called each time."""
        address = await self.aaddress() if self._kind else None

        async def connected(connection: Any) -> None:
            await connection.on_connect()
            if when_connected is not None:
                when_connected()

        return redis.asyncio.Redis.from_url(
            self._url(address), **_options(answer_seconds, AsyncRetry), redis_connect_func=connected
        )

    def address(self) -> Address | None:
        """The address of the right server, as Sentinel or the cluster tells. Uses the network."""
        if self._kind == "sentinel":
            sentinel = self._sentinel(redis.Sentinel, Retry)
            try:
                return self._ask_first_again(sentinel, sentinel.discover_master(self._master))
            except redis.sentinel.MasterNotFoundError:
                raise self._no_master() from None
            finally:
                for client in sentinel.sentinels:
                    client.close()
        if self._kind == "cluster":
            cluster = self._cluster(redis)
            try:
                return self._of_cluster(cluster)
            finally:
                cluster.close()
        return None

    async def aaddress(self) -> Address | None:
        """address() for a coroutine."""
        if self._kind == "sentinel":
            sentinel = self._sentinel(redis.asyncio.Sentinel, AsyncRetry)
            try:
                return self._ask_first_again(sentinel, await sentinel.discover_master(self._master))
            except redis.asyncio.sentinel.MasterNotFoundError:
                raise self._no_master() from None
            finally:
                for client in sentinel.sentinels:
                    await client.aclose()
        if self._kind == "cluster":
            cluster = self._cluster(redis.asyncio)
            try:
                await cluster.initialize()
                return self._of_cluster(cluster)
            finally:
                await cluster.aclose()
        return None

    def _url(self, address: Address | None) -> str:
        where = self._where
        if address is not None:
            host, port = address
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{self._scheme}://{self._credentials}{where}{self._path}?{self._query}"

    def _bad_url(self, url: object, error: Exception | None = None) -> ImproperlyConfigured:
        shown = without_passwords(url)
        because = ""
        if error is not None:
            # What is taken for a port may be the half of a password before its "/".
            reason = re.sub(r"\B'([^']*)'\B", lambda quoted: quoted[0] if quoted[1] in shown else "'…'", str(error))
            because = f" ({reason})"
        hint = ' In a password "/" is written %2F, "?" is %3F, "#" is %23.' if "@" in str(url) else ""
        return ImproperlyConfigured(
            f"{option_place(self._option)} is {shown}{because}; it must be a URL such as {EXAMPLES}.{hint}"
        )

    def _read_sentinel_url(self, query: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
        """``redis+sentinel://user:password@host:port,host:port/name?db=0``: credentials and database are the master's.
        ``sentinel_username`` and ``sentinel_password`` in the query are the Sentinels'. TLS and the query's ``ssl_…``
        hold for both. Returns the path and the query of the master."""
        self._master = unquote(self._path.strip("/"))
        if not self._master or not self._hosts[0][0]:
            raise ValueError("the Sentinels' hosts and the master's name are needed")
        options: dict[str, Any] = {}
        if self._scheme == "rediss":
            given = redis.ConnectionPool.from_url(f"rediss://sentinel?{urlencode(query)}").connection_kwargs
            options = {"ssl": True, **{name: value for name, value in given.items() if name.startswith("ssl_")}}
        options |= {name.removeprefix("sentinel_"): value for name, value in query if name.startswith("sentinel_")}
        self._sentinel_options = options
        return "", [(name, value) for name, value in query if not name.startswith("sentinel_")]

    def _sentinel(self, sentinel_class: Any, retry_class: Any) -> Any:
        return sentinel_class(
            self._sentinels, sentinel_kwargs={**_options(CONNECT_SECONDS, retry_class), **self._sentinel_options}
        )

    def _ask_first_again(self, sentinel: Any, master: Address) -> Address:
        """``sentinel``: redis-py's object, which has put the Sentinel that answered at the top."""
        given = sentinel.sentinels[0].connection_pool.connection_kwargs
        answered = given["host"], given["port"]
        self._sentinels = [answered, *(each for each in self._sentinels if each != answered)]
        return master

    def _no_master(self) -> Exception:
        """Instead of redis-py's error, which in some versions shows the Sentinels' password."""
        return redis.ConnectionError(f"No Sentinel of {self} answers with a master {self._master!r} that is up.")

    def _cluster(self, library: Any) -> Any:
        """``library``: redis or redis.asyncio."""
        nodes = [library.cluster.ClusterNode(*address) for address in self._nodes or self._hosts]
        url = self._url(self._hosts[0])
        return library.RedisCluster.from_url(url, startup_nodes=nodes, socket_timeout=CONNECT_SECONDS)

    def _of_cluster(self, cluster: Any) -> Address:
        """The server that has the key. The cluster's nodes are remembered, since those of the URL may be gone one
        day."""
        node = cluster.get_node_from_key(self._key)
        if node is None:
            raise redis.ConnectionError(f"No server of the cluster has the slot of {self._key!r}.")
        there = ((each.host, int(each.port)) for each in cluster.get_nodes())
        self._nodes = list(dict.fromkeys([*self._hosts, *there]))
        return node.host, int(node.port)


class KeptClient:
    """A client that is kept between uses, and made anew if its connection was closed meanwhile. One thread at a
    time."""

    def __init__(self, server: RedisServer, answer_seconds: float) -> None:
        self._server = server
        self._answer_seconds = answer_seconds
        self._client: Client = None

    def run(self, work: Callable[[Client], Result]) -> Result:
        """What ``work`` returns. Raises one of UNAVAILABLE."""
        was_kept = self._client is not None
        try:
            if not was_kept:
                self._client = self._server.connect(self._answer_seconds)
            return work(self._client)
        except UNAVAILABLE as error:
            self.close()
            if not was_kept or isinstance(error, redis.TimeoutError):
                raise
            return self.run(work)

    def close(self) -> None:
        client, self._client = self._client, None
        close_client(client)


def close_client(client: Client) -> None:
    if client is not None:
        try:
            client.close()
        except UNAVAILABLE as error:
            logger.debug("Closing a connection to Redis: %r", error)


async def aclose_client(client: Client) -> None:
    if client is not None:
        try:
            await client.aclose()
        except UNAVAILABLE as error:
            logger.debug("Closing a connection to Redis: %r", error)


def _options(answer_seconds: float, retry_class: Any) -> dict[str, Any]:
    """Options of every client: RESP2, so that answers look the same in all versions of server and library; no
    retries."""
    return {
        "protocol": 2,
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": retry_class(NoBackoff(), 0),
    }


def _read_hosts(hosts: str, port: int) -> list[Address]:
    """``host:1,[::1]:2,host``: ``port`` is the default."""
    parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
    return [(part.hostname or "", part.port or port) for part in parts]
