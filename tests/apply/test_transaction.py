"""Apply, roll back, recover, remove: what holds for every back end, on one whose kernel is a file."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from k8snetc.apply import journal, receipts
from k8snetc.apply.errors import ApplyError, BrokenError, LockedError, RolledBackError, StaleError, StateError
from k8snetc.apply.receipts import KEEP, pods_of
from k8snetc.apply.session import Progress
from k8snetc.apply.store import Store, open_store
from k8snetc.apply.transaction import (
    Silent,
    Source,
    apply,
    base_of_next,
    before_first,
    fingerprint,
    installed,
    recover,
    remove,
)
from k8snetc.backends.target import Step
from k8snetc.ir.types import Node, Program
from tests.apply.fake import FakeTarget


def program(name: str) -> Program:
    return Program(node=Node(name=name))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> FakeTarget:
    return FakeTarget(tmp_path / "kernel")


class Interrupt(Silent):
    """Sends this process a signal, or dies, before a certain step."""

    def __init__(self, at: int, number: signal.Signals | None) -> None:
        self.at = at
        self.number = number

    def began(self, at: int, total: int, step: Step) -> None:
        if at == self.at:
            if self.number is None:
                os._exit(9)
            os.kill(os.getpid(), self.number)


def test_apply_installs_verifies_and_writes_a_receipt(target: FakeTarget, store: Store) -> None:
    outcome = apply(target, program("abc"), store, source=Source(("web.yaml",), "1234", "3 added"))
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}
    assert outcome.receipt == receipts.newest(store)
    assert outcome.receipt is not None
    assert (outcome.receipt.number, outcome.receipt.sources) == (1, ("web.yaml",))
    assert receipts.program_of(store, 1) == program("abc")
    assert target.cuts == [(None, "abc")]


def test_apply_of_what_runs_does_nothing(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    outcome = apply(target, program("abc"), store)
    assert outcome.receipt is None
    assert receipts.numbers(store) == [1]


def test_apply_repairs_what_somebody_broke(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target._store({"0": "a"})
    assert apply(target, program("abc"), store).size == 2
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}
    assert target.cuts[1:] == [(None, "abc")], "nobody knows what was let in meanwhile"


def test_a_refused_step_puts_back_what_ran_before(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target.broken = "z"
    with pytest.raises(RolledBackError, match="refuses z") as caught:
        apply(target, program("xyz"), store)
    assert caught.value.exit_code == 5
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}
    assert journal.pending(store) is None
    assert receipts.numbers(store) == [1]


def test_a_failed_verify_puts_back_what_ran_before(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target.forgets = "y"
    with pytest.raises(RolledBackError, match=r"does not hold what was installed: \+ 1"):
        apply(target, program("xyz"), store)
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}


def test_connections_that_cannot_be_cut_fail_the_change(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target.uncut = "xyz"
    with pytest.raises(RolledBackError, match="could not be cut: no conntrack"):
        apply(target, program("xyz"), store)
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}
    assert receipts.numbers(store) == [1]


def test_connections_are_judged_again_by_what_is_put_back(target: FakeTarget, store: Store) -> None:
    """The change that failed may have cut some that this program allows."""
    apply(target, program("abc"), store)
    target.forgets = "y"
    with pytest.raises(RolledBackError):
        apply(target, program("xyz"), store)
    assert target.cuts == [(None, "abc"), ("abc", "xyz"), (None, "abc"), ("xyz", "abc")]


def test_connections_that_could_not_be_judged_again_are_by_the_next(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target.forgets, target.uncut = "y", "abc"
    with pytest.raises(BrokenError, match="no conntrack; the journal is kept"):
        apply(target, program("xyz"), store)
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}
    with pytest.raises(BrokenError, match="no conntrack; the journal is kept"):
        apply(target, program("abc"), store)
    target.uncut, target.cuts = None, []
    apply(target, program("abc"), store)
    assert target.cuts == [(None, "abc")]
    assert journal.pending(store) is None


def test_removing_needs_no_judgement(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target.forgets, target.uncut = "y", "abc"
    with pytest.raises(BrokenError):
        apply(target, program("xyz"), store)
    remove(target, store)
    assert target.observe() == {}


def test_where_nobody_knows_what_ran_connections_are_judged(target: FakeTarget, store: Store) -> None:
    """Also where nothing else is to be done."""
    apply(target, program("abc"), store)
    store.write("000001.program", b"damaged")
    outcome = apply(target, program("abc"), store)
    assert outcome.receipt is not None
    assert outcome.steps == ()
    assert target.cuts[1:] == [(None, "abc")]
    assert receipts.program_of(store, 2) == program("abc")
    for name in store.names():
        store.remove(name)
    apply(target, program("abc"), store)
    assert target.cuts[2:] == [(None, "abc")]


def test_when_putting_back_fails_too_the_journal_stays(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    target.broken = "ya"
    with pytest.raises(BrokenError, match="could not be put back") as caught:
        apply(target, program("xyz"), store)
    assert caught.value.exit_code == 6
    target.broken = ""
    assert journal.pending(store) is not None
    with store.locked(0):
        assert recover(target, store, Silent())
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_in_the_middle_undoes(target: FakeTarget, store: Store, number: signal.Signals) -> None:
    apply(target, program("abc"), store)
    with pytest.raises(RolledBackError, match=f"stopped by {number.name}"):
        apply(target, program("xyz"), store, watch=Interrupt(1, number))
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize("at", range(3))
def test_killed_at_any_step_the_next_call_undoes(target: FakeTarget, store: Store, at: int) -> None:
    apply(target, program("abc"), store)
    child = os.fork()
    if child == 0:
        apply(target, program("xyz"), store, watch=Interrupt(at, None))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert journal.pending(store) is not None
    with store.locked(1):
        assert recover(target, store, Silent())
    assert target.observe() == {"0": "a", "1": "b", "2": "c"}
    assert not recover(target, store, Silent())


def test_a_stale_plan_is_refused(target: FakeTarget, store: Store) -> None:
    base = fingerprint(target, target.observe())
    apply(target, program("abc"), store, base=base)
    with pytest.raises(StaleError, match="changed since this plan"):
        apply(target, program("xyz"), store, base=base)


def test_two_at_once(target: FakeTarget, store: Store) -> None:
    with store.locked(0), pytest.raises(LockedError, match=f"process {os.getpid()}"):
        apply(target, program("abc"), store, wait=0)
    assert target.observe() == {}


def test_assumed_addresses_are_refused(target: FakeTarget, store: Store) -> None:
    with pytest.raises(ApplyError, match="assumed"):
        apply(target, Program(assumed=True), store)


def test_remove_leaves_nothing_and_restores_settings(target: FakeTarget, store: Store) -> None:
    target._store({"setting": "0"})
    apply(target, program("abc"), store)
    assert "setting" in target.observe()
    remove(target, store)
    assert target.observe() == {"setting": "0"}
    assert not store.path.exists()


def test_another_back_end_must_be_removed_first(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    other = FakeTarget(target.kernel)
    other.name = "nftables"
    with pytest.raises(ApplyError, match="remove --backend iptables"):
        apply(other, program("abc"), store)


def test_roll_backs_go_further_back_each_time(target: FakeTarget, store: Store) -> None:
    for name in ("a", "b", "c"):
        apply(target, program(name), store)
    now = receipts.newest(store)
    for expected in ("b", "a"):
        assert now is not None
        back = receipts.previous(store, now)
        assert back is not None
        went = receipts.program_of(store, back.number)
        assert went.node.name == expected
        apply(target, went, store, source=Source(restores=back.number))
        now = receipts.newest(store)
    assert now is not None
    assert receipts.previous(store, now) is None


def test_only_the_newest_receipts_are_kept(target: FakeTarget, store: Store) -> None:
    for at in range(receipts.KEEP + 3):
        apply(target, program(f"{at:02}"), store)
    assert len(receipts.numbers(store)) == receipts.KEEP


def test_files_are_for_root_alone(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in store.path.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700


def test_links_are_not_followed(target: FakeTarget, store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (store.path / "journal").symlink_to(victim)
    with pytest.raises(StateError):
        apply(target, program("abc"), store)
    assert victim.read_text() == "keep"
    (store.path / "journal").unlink()
    (store.path / "lock").unlink(missing_ok=True)
    (store.path / "lock").symlink_to(victim)
    with pytest.raises(StateError):
        apply(target, program("abc"), store)


def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(StateError, match="could be changed by others"):
        open_store(path)


def test_a_damaged_receipt_is_an_error_that_says_so(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    (store.path / "000001.receipt").write_bytes(b"{}")
    with pytest.raises(StateError, match="receipt 1"):
        apply(target, program("xyz"), store)


def test_what_another_back_end_left_is_not_read(target: FakeTarget, store: Store) -> None:
    """A first apply that failed leaves what it found; another back end can't read it, and needn't."""
    target.broken = "x"
    with pytest.raises(RolledBackError):
        apply(target, program("xyz"), store)
    other = FakeTarget(target.kernel)
    other.name = "nftables"
    assert before_first(other, store) is None
    apply(other, program("abc"), store)
    with pytest.raises(ApplyError, match="the nftables back end is installed"):
        installed(target, store)


def test_a_terminal_that_is_gone_stops_no_putting_back(
    target: FakeTarget, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(target, program("abc"), store)
    before = target.observe()
    target.broken = "z"
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        with pytest.raises(RolledBackError):
            apply(target, program("xyz"), store, watch=Progress(quiet=False))
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    assert target.observe() == before
    assert "journal" not in store.names()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(target: FakeTarget, store: Store) -> None:
    os.mkfifo(store.path / "journal")
    with pytest.raises(StateError, match="isn't a file of ours"):
        apply(target, program("abc"), store)


def test_other_files_are_no_receipts(target: FakeTarget, store: Store) -> None:
    (store.path / "old.receipt").write_text("x")
    assert apply(target, program("abc"), store).receipt is not None


def test_a_directory_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(StateError, match="could be replaced by others"):
        open_store(above / "state")
    above.chmod(0o1777)
    open_store(above / "state").close()


def test_a_damaged_program_is_not_known_and_replaced(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    (store.path / "000001.program").write_bytes(b"{}")
    receipt = apply(target, program("xyz"), store).receipt
    assert receipt is not None
    assert receipt.number == 2


def test_pods_are_kept_with_their_receipt(target: FakeTarget, store: Store) -> None:
    pods = {ip_address("10.0.0.1"): "shop/a", ip_address("fd00::1"): "shop/a"}
    for number in range(KEEP + 2):
        apply(target, program("ab"[number % 2]), store, source=Source(pods=pods))
    assert pods_of(store, KEEP + 2) == pods
    assert pods_of(store, 1) is None
    (store.path / f"{KEEP + 2:06}.pods").write_bytes(b"rubbish")
    assert pods_of(store, KEEP + 2) is None


def test_a_plan_beside_a_running_apply_is_stale_when_that_is_done(target: FakeTarget, store: Store) -> None:
    """What a plan saw while another apply ran is what that began with, never something in between."""
    apply(target, program("abc"), store)
    seen: list[str] = []

    class Look(Silent):
        def began(self, at: int, total: int, step: Step) -> None:
            seen.append(fingerprint(target, base_of_next(target, store)))
            assert store.holder() == str(os.getpid())

    old = fingerprint(target, target.observe())
    apply(target, program("xyz"), store, watch=Look())
    assert set(seen) == {old}
    assert len(seen) == 3
    assert store.holder() is None
    with pytest.raises(StaleError):
        apply(target, program("mno"), store, base=seen[-1])


def test_a_plan_after_a_killed_apply_is_for_what_will_be_put_back(target: FakeTarget, store: Store) -> None:
    apply(target, program("abc"), store)
    old = fingerprint(target, target.observe())
    pid = os.fork()
    if pid == 0:
        apply(target, program("xyz"), store, watch=Interrupt(1, None))
        os._exit(0)
    os.waitpid(pid, 0)
    assert fingerprint(target, target.observe()) != old
    base = fingerprint(target, base_of_next(target, store))
    assert base == old
    assert apply(target, program("mno"), store, base=base).receipt is not None
