"""Access control: a request must name this server as its host, come from its own pages, and carry its token.

A page of another site in a browser can send requests to this machine, but it cannot choose their Host header: requests
under a name of that site, which resolves to this machine (DNS rebinding), are rejected.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Sequence

from panrt.engine.sinks.address import (
    NEW_TOKEN,
    NO_TOKEN,
    TOKEN_VARIABLE,
    Address,
    IpAddress,
    authority,
    bound_to,
    check_token,
    plain,
)
from panrt.engine.sinks.request import RejectedError, Request
from panrt.errors import SinkError

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::\d{1,5})?", re.ASCII)


class Access:
    """Decides whether a request is accepted.

    Raises:
        SinkError: the token in the environment is not valid.
    """

    def __init__(self, address: Address, listeners: Sequence[socket.socket]) -> None:
        self._bound = {bound_to(listener) for listener in listeners}
        self._open = any(host.is_unspecified for host in self._bound)
        self._names = address.names | {"localhost", address.host.lower().removesuffix(".")} | _own_names()
        self._listener = listeners[0]
        self._given = True  # whether the user chose the token
        self.token = ""  # "": no token is required
        from_environment = os.environ.get(TOKEN_VARIABLE, "")
        if address.token and address.token != NEW_TOKEN:
            self.token = "" if address.token == NO_TOKEN else address.token
        elif from_environment and address.token != NEW_TOKEN:
            check_token(f"{address.uri}: {TOKEN_VARIABLE} in the environment", from_environment, SinkError)
            self.token = from_environment
        elif address.token == NEW_TOKEN or not all(host.is_loopback for host in self._bound):
            self.token = secrets.token_urlsafe(24)
            self._given = False
        # Cookies are shared by all ports of a host.
        self.cookie_name = f"panrt-{self._listener.getsockname()[1]}"

    def url(self, path: str) -> str:
        """Return the URL to open, with the token if it is a generated one."""
        query = "" if self._given else f"?token={self.token}"
        return f"http://{authority(self._listener)}{path}{query}"

    @property
    def note(self) -> str:
        """A remark for the user who opens the URL, in parentheses; "" if there is none."""
        if self.token and self._given:
            return " (append ?token= and the token that you gave)"
        loopback = all(host.is_loopback for host in self._bound)
        return "" if loopback or self.token else " (open to the network without a token)"

    def check(self, request: Request) -> None:
        """Check a request.

        Raises:
            RejectedError: it does not name this server, comes from another site, or lacks the token.
        """
        for name in request.authorities:
            if not self._is_own(name):
                raise RejectedError(403, "this server does not answer under that host name; see its option ?host=")
        site = request.header("sec-fetch-site", "none")
        opened = request.header("sec-fetch-dest", "document") == "document"
        if site not in ("none", "same-origin") and not opened:
            raise RejectedError(403, "another site may not embed this")
        if self.token and not self._has_token(request):
            raise RejectedError(401, "open the URL that was printed at the start", {"WWW-Authenticate": "Bearer"})

    def _is_own(self, text: str) -> bool:
        found = _AUTHORITY.fullmatch(text)
        if found is None:
            raise RejectedError(400, "the host is not NAME:PORT")
        name = found[1].lower().removesuffix(".")
        try:
            host: IpAddress = plain(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return name in self._names or name.endswith(".localhost")
        # An address is not resolved, so it cannot be rebound; from outside a container the host has another address.
        return self._open or host.is_loopback or host in self._bound

    def _has_token(self, request: Request) -> bool:
        kind, _, bearer = request.header("authorization").partition(" ")
        given = [request.query.get("token", ""), bearer.strip() if kind.lower() == "bearer" else ""]
        for cookie in request.header("cookie").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self.cookie_name:
                given.append(value)
        wanted = self.token.encode()
        matches = [hmac.compare_digest(text.encode(), wanted) for text in given]
        return any(matches)


def _own_names() -> frozenset[str]:
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"} - {""})
