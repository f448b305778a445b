"""pytest in the guest: collects the files it is given once, then runs the tests that the host names, one by one.

    python -m tests.vm.worker [pytest's options] FILE...

Standard input carries one line of JSON per test, {"run": node id, "next": node id or null}; standard output answers
with {"ready": [node ids]}, {"report": ...} for each phase and {"done": node id}. All else goes to standard error.
"""

import json
import os
import sys
from typing import BinaryIO

import pytest


class Worker:
    """Replaces pytest's loop over all tests by one over the host's requests."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._config: pytest.Config | None = None

    def _say(self, **message: object) -> None:
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Remember what turns reports into JSON, and know a mark of a plugin that is not loaded here."""
        self._config = config
        config.addinivalue_line("markers", "xdist_group(name): which tests share a worker on the host")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what the host asks for until it closes the input."""
        items = {item.nodeid: item for item in session.items}
        self._say(ready=list(items))
        for line in self._requests:
            request = json.loads(line)
            item = items[request["run"]]
            # A fixture is kept for the next test only if that one is ours, too.
            following = items.get(request["next"]) if request["next"] else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self._say(done=request["run"])
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send each phase's report to the host as it comes."""
        assert self._config is not None
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._say(report=data)


def main() -> int:
    """Run pytest; its exit status says whether collecting worked (0) or not."""
    # Before pytest captures or a test prints: the channel is ours alone.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    options = ["-p", "no:cacheprovider", "-p", "pytest_timeout", *sys.argv[1:]]
    return int(pytest.main(options, plugins=[Worker(requests, answers)]))


if __name__ == "__main__":
    sys.exit(main())
