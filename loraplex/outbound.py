"""Requests to addresses that users give: to the public internet only, and where we looked.

A name is resolved once, each of its addresses must be public, and the connection goes to the one
that was checked: so neither a private name nor one that resolves differently a moment later leads
inside. Redirects are not followed, proxies of the environment not used.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Collection

import httpx

_TIMEOUT_S = 10.0
_NAME = re.compile(r"(?!-)[\w-]{1,63}(\.[\w-]{1,63})+\.?")  # with a domain


class RefusedAddress(Exception):
    """The sentence is for who gave the address."""


def check(url: str, allowed: Collection[str]) -> httpx.URL:
    """What can be told without a look-up. `allowed`: hosts that may be private, and without TLS."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as wrong:
        raise RefusedAddress(f"{url!r} is no URL: {wrong}") from wrong
    if (parsed.port or 1) > 65535:
        raise RefusedAddress(f"{parsed.port} is no port.")
    if parsed.scheme not in ("https", "http") or not parsed.host or parsed.userinfo:
        raise RefusedAddress("Give an https:// address, without a user name.")
    try:
        parsed.host.encode("idna")
    except UnicodeError as wrong:
        raise RefusedAddress(f"{parsed.host!r} is no name of a host.") from wrong
    if parsed.host in allowed:
        return parsed
    if parsed.scheme != "https":
        message = f"https:// only: {parsed.host} is not in LORAPLEX_CALLBACK_HOSTS."
        raise RefusedAddress(message)
    if _is_address(parsed.host):
        _check_public(parsed.host, parsed.host)
    elif not _NAME.fullmatch(parsed.host) or parsed.host.endswith((".localhost", ".local")):
        message = f"{parsed.host!r} is no public name of a host; see LORAPLEX_CALLBACK_HOSTS."
        raise RefusedAddress(message)
    return parsed


def post(url: str, body: bytes, headers: dict[str, str], allowed: Collection[str]) -> int:
    """Send, return the status; the answer's body is not read.

    Raises RefusedAddress, httpx.HTTPError, OSError.
    """
    parsed = check(url, allowed)
    host = parsed.host
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if host not in allowed:
        for address in found:
            _check_public(host, address)
    headers = headers | {"host": parsed.netloc.decode()}
    return asyncio.run(_post(parsed.copy_with(host=found[0]), host, body, headers))


async def _post(url: httpx.URL, host: str, body: bytes, headers: dict[str, str]) -> int:
    # A timeout of httpx is one of each read: who sends a byte a second would hold it for ever.
    async with (
        asyncio.timeout(_TIMEOUT_S),
        httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, follow_redirects=False) as client,
        client.stream(
            "POST", url, content=body, headers=headers, extensions={"sni_hostname": host}
        ) as response,
    ):
        return response.status_code


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_public(host: str, address: str) -> None:
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if not found.is_global or found.is_multicast or (inner is not None and not inner.is_global):
        message = f"{host} is at {address}, which is not public; see LORAPLEX_CALLBACK_HOSTS."
        raise RefusedAddress(message)
