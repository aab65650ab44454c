"""Redis clients with bounds on every call, and the check that the server can be trusted."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.cluster
from redis._parsers.base import BaseParser
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from loraplex.settings import CLUSTER

CALL_TIMEOUT_S = 5.0


class Unwritable(redis.ResponseError):
    """Redis can't persist or replicate: its disk is full, say."""


class NotLeading(redis.ConnectionError):
    """A failover: another server takes the writes now. The connection is made anew."""


# redis-py has no classes of these kinds.
BaseParser.EXCEPTION_CLASSES |= {
    "MISCONF": Unwritable,
    "NOREPLICAS": Unwritable,
    "READONLY": NotLeading,
}

Unavailable = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    Unwritable,
)
"""What a call raises while Redis is down, restarting, too slow, full, or another one leads."""


class UnfitRedis(RuntimeError):
    """The server would lose jobs or lacks what the scripts need."""


def connect(url: str) -> "redis.Redis":
    """A blocking client. Calls are not repeated silently: a repeated XADD is a second job."""
    if CLUSTER in url:
        cluster = RedisCluster.from_url(
            url.replace(CLUSTER, "://"),
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        return cast("redis.Redis", cluster)  # it has the same commands
    return redis.Redis.from_url(
        url,
        socket_timeout=CALL_TIMEOUT_S,
        socket_connect_timeout=CALL_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def connect_async(url: str) -> "redis.asyncio.Redis":
    """The same for asyncio. More calls at once than connections wait for their turn."""
    if CLUSTER in url:
        cluster = redis.asyncio.cluster.RedisCluster.from_url(
            url.replace(CLUSTER, "://"),
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=AsyncRetry(NoBackoff(), 0),
        )
        return cast("redis.asyncio.Redis", cluster)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        socket_timeout=CALL_TIMEOUT_S,
        socket_connect_timeout=CALL_TIMEOUT_S,
        retry=AsyncRetry(NoBackoff(), 0),
        max_connections=256,
        timeout=CALL_TIMEOUT_S,
    )
    return redis.asyncio.Redis.from_pool(pool)


async def drop_idle(client: "redis.asyncio.Redis") -> None:
    """Close the connections that nobody uses just now: they are made anew."""
    if isinstance(client, redis.asyncio.cluster.RedisCluster):
        nodes = client.get_nodes()
        if not nodes:  # it has never asked who serves what
            await client.initialize()
        for node in nodes:
            await node.disconnect_free_connections()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


def server_version(info: Mapping[str, Any]) -> str:
    """Out of what INFO says; of Valkey its own, not the Redis version that it is like."""
    return str(info.get("valkey_version") or info.get("redis_version"))


def check(client: "redis.Redis") -> None:
    """Refuse a server that evicts keys or is older than 7. Raises UnfitRedis."""
    for server in _servers(client):
        _check(server)


def _servers(client: "redis.Redis") -> Iterator["redis.Redis"]:
    if isinstance(client, RedisCluster):
        for node in client.get_primaries():
            yield client.get_redis_connection(node)
    else:
        yield client


def _check(client: "redis.Redis") -> None:
    info = client.info("server")
    version = server_version(info)
    if int(version.split(".")[0]) < 7:
        raise UnfitRedis(f"Redis {version} is too old: Loraplex needs Redis or Valkey 7 or newer.")
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
    except redis.ResponseError:  # managed services forbid CONFIG; INFO tells the policy too
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnfitRedis(
            f"Redis evicts keys (maxmemory-policy {policy}): accepted jobs would be lost. "
            "Set maxmemory-policy noeviction."
        )
