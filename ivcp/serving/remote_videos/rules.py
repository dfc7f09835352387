"""What an operator allows."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork

from ivcp.serving.remote_videos.addresses import NEVER, Network
from ivcp.serving.remote_videos.errors import UriError

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253
_BUCKET = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/(.*))?")


def is_host(text: str) -> bool:
    """Whether it is the plain spelling of a name or address: lower case, ASCII, no port, no final dot.

    What ends in a number is an IPv4 address to browsers and resolvers (`127.1`, `0x7f000001`, `2130706433`): only the
    one with four decimal numbers is taken.
    """
    if ":" in text or _NUMBER.fullmatch(text.rpartition(".")[2]):
        try:
            return str(ip_address(text)) == text and "%" not in text
        except ValueError:
            return False
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def _host_pattern(text: str) -> str:
    host = text.lower()
    name = host.removeprefix("*.")
    if not is_host(name) or (name != host and (":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]))):
        raise ValueError(
            f"{text!r} is no host: expected a name such as videos.example.com, *.example.com for all names below one, "
            "or an address, without scheme and port; names of other scripts as xn--…"
        )
    return host


def _bucket_prefix(text: str) -> str:
    found = _BUCKET.fullmatch(text.rstrip("/"))
    if found is None or not all(part not in ("", ".", "..") for part in (found[2] or "whole bucket").split("/")):
        raise ValueError(f"{text!r} is no bucket: expected s3://bucket or s3://bucket/prefix")
    return text.rstrip("/")


def _listed_network(network: Network) -> Network:
    if any(network.version == never.version and network.subnet_of(never) for never in NEVER):  # type: ignore[arg-type]
        raise ValueError(f"{network} cannot be allowed: it is link-local, multicast, or a cloud's metadata")
    return network


class UriRules(BaseModel):
    """Where videos may be fetched from, and how much and how long; without a host and a bucket, from nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[Annotated[str, AfterValidator(_host_pattern)], ...] = ()
    """Names of servers: exact ones, or `*.example.com` for all names below one (not for `example.com` itself)."""
    buckets: tuple[Annotated[str, AfterValidator(_bucket_prefix)], ...] = ()
    """`s3://bucket`, or `s3://bucket/prefix` for the objects below a folder of it. They are read with the server's own
    credentials: whoever may ask the server may then read them."""
    schemes: tuple[Literal["https", "http"], ...] = ("https",)
    """How those servers may be asked. Without TLS anybody on the way can exchange the video."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    """Ports of those servers; none is the scheme's own, 443 or 80."""
    networks: tuple[Annotated[IPvAnyNetwork, AfterValidator(_listed_network)], ...] = ()
    """Networks (CIDR) that are not public, and that the hosts above may be in: a cluster's own services. Link-local
    addresses and the metadata servers of clouds stay forbidden. `64:ff9b::/96` for a cluster that reaches IPv4
    through NAT64."""
    max_bytes: int = Field(512_000_000, ge=1)
    """The largest video."""
    max_redirects: int = Field(3, ge=0)
    """To the same or another allowed host."""
    connect_seconds: float = Field(5.0, gt=0)
    """To connect to one address, and to agree on TLS."""
    read_seconds: float = Field(10.0, gt=0)
    """The longest silence of the other server."""
    total_seconds: float = Field(60.0, gt=0)
    """From the name's resolution to the last byte."""

    @property
    def allow_any(self) -> bool:
        """Whether there is anything that may be fetched."""
        return bool(self.hosts or self.buckets)

    def allow_host(self, host: str) -> bool:
        """Whether the host, spelled as `is_host` wants it, is listed."""
        return any(host.endswith(listed[1:]) if listed.startswith("*.") else host == listed for listed in self.hosts)

    def allow_port(self, scheme: str, port: int) -> bool:
        """Whether that port may be asked over that scheme."""
        return port in (self.ports or ({"https": 443, "http": 80}[scheme],))

    def allow_object(self, bucket: str, key: str) -> bool:
        """Whether the object is below a listed bucket or prefix: `s3://b/clips` does not allow `s3://b/clips2/a`."""
        return any(f"s3://{bucket}/{key}/".startswith(f"{listed}/") for listed in self.buckets)

    def check_size(self, uri: object, num_bytes: int) -> None:
        """`uri` is what the message shows.

        Raises:
            UriError: uri_too_large.
        """
        if num_bytes > self.max_bytes:
            raise UriError(
                "uri_too_large", f"{uri} has more than the {self.max_bytes} bytes allowed: send a shorter clip"
            )
