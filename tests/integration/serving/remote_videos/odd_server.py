"""A server on loopback that writes whatever bytes a test wants, and name servers that say what it wants."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Answer = bytes | Callable[[], Iterator[bytes]]


def ok(body: bytes, *headers: str) -> bytes:
    """A whole answer, with its length."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: int = 302) -> bytes:
    return (
        f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n".encode()
    )


class OddServer:
    """Answers a path with the bytes that `answers` has for it, in one piece or drop by drop, and hangs up."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[bytes] = []
        self.sent_bytes = 0
        """Of the last answer: how much the client took."""
        self.closing = threading.Event()
        self._context = context
        self._listener = socket.create_server((address, port))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _serve(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            plain.settimeout(10)
            connection = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += (received := connection.recv(65536))
                    if not received:
                        return
                    if head.startswith(b"\x16"):  # somebody speaks TLS to a server without
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        return
                self.requests.append(head)
                answer = self.answers[head.split()[1].decode().partition("?")[0]]
                self.sent_bytes = 0
                for part in [answer] if isinstance(answer, bytes) else answer():
                    if self.closing.is_set():
                        return
                    connection.sendall(part)
                    self.sent_bytes += len(part)


@dataclass
class Names:
    """What the name server answers, in place of the real one."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    """Of each name, the addresses of the first answer, of the second, …; the last one stays."""
    asked: list[str] = field(default_factory=list)

    def getaddrinfo(self, host: str | bytes, port: int, *_: Any, **__: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        if name not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = self.answers[name].pop(0) if len(self.answers[name]) > 1 else self.answers[name][0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]
