"""Why the kernel refused a program, out of what libbpf and the verifier said.

Pure. Must not know: how programs are loaded.
"""

from __future__ import annotations

import os
import re

from k8snetc.backends.ebpf.build import SOURCE

LAST_LINES = 12  # of the verifier's words: the registers just before, the complaint, and its statistics
_BEGIN = re.compile(r"^libbpf: prog '(\w+)': -- BEGIN PROG LOAD LOG --$")
_PLACE = re.compile(rf"^(?P<text>.*) @ {re.escape(SOURCE)}:(?P<line>\d+)$")


def explain(log: str, code: int, source: str) -> str:
    """The message for people. `code` is the errno, `source` the C that was compiled."""
    lines = log.splitlines()
    began = next((i for i, line in enumerate(lines) if _BEGIN.match(line)), None)
    if began is None:
        return f"the kernel does not take the program: {os.strerror(code)}\n{log}".rstrip()
    found = _BEGIN.match(lines[began])
    name = found[1] if found else "?"
    words = [line for line in lines[began + 1 :] if not line.startswith(("libbpf: ", "-- END"))]
    told = [f"the kernel's verifier refuses the program {name}; nothing was changed"]
    at = next(
        (line[2:].strip() for line in reversed(words) if line.startswith("; ") and line[2:].strip()), None
    )
    if at is not None:
        told.append(f"  at {_place(at, source)}")
    told += [f"  {line}" for line in words if line.strip() and not line.startswith(";")][-LAST_LINES:]
    return "\n".join(told)


def _place(text: str, source: str) -> str:
    """`k8snetc.bpf.c:12: the line`. Linux before 6.8 gives no numbers: then they are those of equal lines."""
    found = _PLACE.match(text)
    if found:
        return f"{SOURCE}:{found['line']}: {found['text']}"
    numbers = [str(n) for n, line in enumerate(source.splitlines(), 1) if line.strip() == text]
    return f"{SOURCE}:{' or '.join(numbers[:4])}: {text}" if numbers else f"{SOURCE}: {text}"
