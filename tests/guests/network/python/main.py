"""Reaches for the network as any Python program does."""

import http.client
import os
import socket
import urllib.request
from urllib.parse import urlsplit


def get(url: str) -> str:
    """Gets something, and says its status and text."""
    with urllib.request.urlopen(url, timeout=20) as response:
        return f"{response.status} {response.read().decode()}"


def post(url: str, body: str) -> str:
    """Posts something, and says what came back."""
    with urllib.request.urlopen(url, data=body.encode(), timeout=20) as response:
        return f"{response.status} {response.read().decode()}"


def tunnelled(url: str) -> str:
    """Gets something through a tunnel, as clients do for https."""
    proxy, to = urlsplit(os.environ["https_proxy"]), urlsplit(url)
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=20)
    connection.set_tunnel(to.hostname, to.port)
    connection.request("GET", to.path)
    response = connection.getresponse()
    return f"{response.status} {response.read().decode()}"


def lie(url: str, host: str) -> str:
    """Gets something, with another host in its header."""
    request = urllib.request.Request(url, headers={"Host": host})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.read().decode()


def raw(host: str, port: int) -> str:
    """Connects without a proxy."""
    try:
        socket.create_connection((host, port), 5).close()
        return "connected"
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def say(text: str) -> str:
    """Says anything to the proxy, and returns what it answers first."""
    proxy = urlsplit(os.environ["http_proxy"])
    with socket.create_connection((proxy.hostname, proxy.port), 20) as connection:
        connection.sendall(text.encode())
        return connection.makefile().readline().strip()


def listen() -> str:
    """Lets others connect, or tries to."""
    try:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            return "listening"
    except OSError as error:
        return type(error).__name__


def hog(many: int) -> int:
    """Holds so many connections to the proxy, and says nothing on them."""
    proxy = urlsplit(os.environ["http_proxy"])
    held = []
    try:
        for _ in range(many):
            held.append(socket.create_connection((proxy.hostname, proxy.port), 2))
    except OSError:
        pass
    return len(held)
