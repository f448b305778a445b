"""What a lab server says to whoever reaches it: its name, where it was reached, and who it saw.

One line of text, so that `nc` shows it too: `pod/shop/cart-0 10.244.1.7 8080 10.0.0.9 41234`.
"""

from __future__ import annotations

from ipaddress import ip_address

from k8snetc.lab.probe import Seen


def write(server: str, endpoint: tuple[str, int], source: tuple[str, int]) -> bytes:
    """The line, with its end."""
    return f"{server} {endpoint[0]} {endpoint[1]} {source[0]} {source[1]}\n".encode()


def read(line: bytes) -> tuple[str, Seen, Seen] | None:
    """Server, endpoint and source; None when it is no such line."""
    words = line.decode("utf-8", "replace").split()
    if len(words) != 5:
        return None
    try:
        endpoint = Seen(ip_address(words[1]), int(words[2]))
        source = Seen(ip_address(words[3]), int(words[4]))
    except ValueError:
        return None
    return words[0], endpoint, source
