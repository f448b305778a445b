"""Names of chains and sets: from identity or content, within the kernel's limits, never from a manifest's text.

Knows: prefixes, lengths, hashes. Must not know: what is named.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import blake2b

from k8snetc.backends.common.xtables.model import PREFIX

LIMIT = 28
"""Characters of a chain's name (XT_EXTENSION_MAXNAMELEN less NUL and iptables' reserve); a set's may have 31."""


def hashed(kind: str, *identity: str) -> str:
    """`K8SNETC-<kind>-<hash>`: equal for equal identities only (96 bits of BLAKE2b), stable for ever.

    Parts are length-prefixed before they are hashed, so that no two lists of parts read the same.
    """
    text = "".join(f"{len(part)}:{part}" for part in identity)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return f"{PREFIX}{kind}-{b64encode(digest, b'._').decode('ascii')}"


def content(kind: str, lines: Iterable[str]) -> str:
    """A name for exactly these lines."""
    return hashed(kind, "\n".join(lines))
