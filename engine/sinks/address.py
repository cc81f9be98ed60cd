"""Addresses of `web://` and `metrics://`: parsing, the sockets that listen there, and the URL to open.

    :8080, localhost:8080    this machine only, by IPv4 and IPv6
    127.0.0.1:8080, [::1]:8080, 192.168.1.7:8080, camera-box:8080    that address only
    0.0.0.0:8080             every IPv4 address of this machine
    [::]:8080                every address of this machine

Port 0 means any free port.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from panrt.errors import SinkError, UnknownSinkError
from panrt.formats.records import shown

OPTIONS = "token", "host"
NO_TOKEN, NEW_TOKEN = "none", "auto"  # values of the option `token` with a special meaning
TOKEN_VARIABLE = "PANRT_TOKEN"
BACKLOG = 2048  # connections that wait to be accepted; one beyond it is delayed for seconds, so it is long

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_TARGET = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*):(\d{1,5})/?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\.?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,128}", re.ASCII)  # characters that a query and a cookie hold unquoted
_NO_IPV6 = errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL
_CURES = {
    errno.EADDRINUSE: "choose another port, or 0 for a free one",
    errno.EADDRNOTAVAIL: "this machine has no such address; :PORT listens for this machine alone, 0.0.0.0:PORT for all",
    errno.EACCES: "ports below 1024 need privileges; choose one above",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
}


@dataclass(frozen=True)
class Address:
    """The place where a server listens, and the requests that it accepts, from its URI."""

    uri: str  # without options, so that messages show no token
    host: str  # "": this machine only
    port: int
    names: frozenset[str]  # in lower case: further host names that it accepts
    token: str  # as given, or `NO_TOKEN`, or `NEW_TOKEN`; "": decided by the address


def parse_address(scheme: str, target: str, options: Mapping[str, str]) -> Address:
    """Parse the address of a server.

    Args:
        scheme: web or metrics.
        target: the text after the scheme, such as `:8080`.
        options: `token` and `host`; others are ignored.

    Raises:
        UnknownSinkError: it is not a valid address; the message shows neither token nor login.
    """
    if "@" in target:
        raise UnknownSinkError(f"{scheme}://: a login in the address is not supported; give a token, ?token=TEXT.")
    if "?" in target or "#" in target:  # options that could not be parsed, which may hold a token
        raise UnknownSinkError(f"{scheme}://: expected options after the address, such as :8080?token=TEXT&host=NAME.")
    uri = f"{scheme}://{target}"
    expected = f"expected HOST:PORT or :PORT such as {scheme}://:8080"
    found = _TARGET.fullmatch(target)
    if found is None and target.count(":") > 1 and "[" not in target:
        raise UnknownSinkError(f"{scheme}://: got {shown(target)}; write IPv6 in brackets: {scheme}://[::1]:8080.")
    if found is None:
        raise UnknownSinkError(f"{scheme}://: got {shown(target)}, {expected}.")
    host, port = found[1], int(found[2])
    if port > 65535:
        raise UnknownSinkError(f"{uri}: got port {port}, expected 0 to 65535.")
    if host.startswith("["):
        host = host[1:-1]
        _check_ipv6(uri, host)
    elif host == "*":
        raise UnknownSinkError(f"{uri}: write 0.0.0.0 for every IPv4 address of this machine, [::] for IPv6 as well.")
    elif host and _NAME.fullmatch(host) is None:
        raise UnknownSinkError(f"{scheme}://: got the host {shown(host)}, {expected}.")
    names = [name.strip().lower().removesuffix(".") for name in options.get("host", "").split(",") if name.strip()]
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise UnknownSinkError(f"{uri}: host: got {shown(name)}, expected a name such as camera.example.com.")
    token = options.get("token")
    if token is not None and token not in (NO_TOKEN, NEW_TOKEN):
        check_token(f"{uri}: token", token, UnknownSinkError)
    return Address(uri, "" if host.lower() == "localhost" else host, port, frozenset(names), token or "")


def check_token(where: str, token: str, error: type[SinkError | UnknownSinkError]) -> None:
    """Raise an error that does not show the token if it is too short or has characters that a URL cannot hold."""
    if _TOKEN.fullmatch(token) is None:
        raise error(
            f"{where}: got {len(token)} characters, expected 8 to 128 of A-Z a-z 0-9 . _ ~ -, "
            f"or {NEW_TOKEN} or {NO_TOKEN}."
        )


def _check_ipv6(uri: str, host: str) -> None:
    if "%" in host:
        raise UnknownSinkError(f"{uri}: an IPv6 address with a zone is not supported; use [::], or an address without.")
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise UnknownSinkError(f"{uri}: got {shown(host)} in brackets, expected an IPv6 address.") from error


def listen(address: Address) -> list[socket.socket]:
    """Return non-blocking sockets that listen at an address, all on one port.

    Raises:
        SinkError: no socket can listen there.
    """
    hosts = _hosts(address)
    attempts = 1 if address.port or len(hosts) == 1 else 8  # a port that is free in IPv4 may be taken in IPv6
    for attempt in range(attempts):
        sockets: list[socket.socket] = []
        with ExitStack() as failed:
            for host in hosts:
                port = sockets[0].getsockname()[1] if sockets else address.port
                try:
                    sockets.append(failed.enter_context(_listen(host, port)))
                except OSError as error:
                    if not address.host and sockets and error.errno in _NO_IPV6:
                        continue  # IPv4 suffices
                    if error.errno == errno.EADDRINUSE and attempt + 1 < attempts:
                        break
                    cure = _CURES.get(error.errno or 0, "choose another address")
                    at = _authority(host, port)
                    raise SinkError(f"{address.uri}: cannot listen on {at}: {error.strerror}; {cure}.") from error
            else:
                failed.pop_all()
                return sockets
    raise AssertionError("the last attempt returns or raises")


def _listen(host: IpAddress, port: int) -> socket.socket:
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host.version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not host.is_unspecified)
        listener.bind((str(host), port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _hosts(address: Address) -> list[IpAddress]:
    if not address.host:
        return [ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SinkError(f"{address.uri}: no such host {shown(address.host)}; give an address, or :PORT.") from error
    texts = dict.fromkeys(str(entry[4][0]) for entry in found)
    hosts = [ipaddress.ip_address(text) for text in texts if "%" not in text]
    if not hosts:
        raise SinkError(f"{address.uri}: {shown(address.host)} has only addresses with a zone; give another address.")
    return hosts


def authority(listener: socket.socket) -> str:
    """Return the HOST:PORT at which a browser reaches a listening socket."""
    host, port = bound_to(listener), listener.getsockname()[1]
    return _authority(_outward(host) if host.is_unspecified else host, port)


def bound_to(connection: socket.socket) -> IpAddress:
    """Return the local address of a socket; an IPv4-mapped IPv6 address as IPv4."""
    return plain(ipaddress.ip_address(connection.getsockname()[0].partition("%")[0]))


def plain(host: IpAddress) -> IpAddress:
    """Return an address; an IPv4-mapped IPv6 address as IPv4."""
    return (host.ipv4_mapped or host) if isinstance(host, ipaddress.IPv6Address) else host


def _authority(host: IpAddress, port: int) -> str:
    return f"{host}:{port}" if host.version == 4 else f"[{host}]:{port}"


def _outward(wildcard: IpAddress) -> IpAddress:
    """Return this machine's address in its network; loopback if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; nothing is sent
            return bound_to(probe)
        except OSError:
            return ipaddress.ip_address("127.0.0.1" if wildcard.version == 4 else "::1")
