"""The target model of iptables and ipset: what `emit` prints and what `observe` reads back.

Knows: tables, chains, rules as canonical lines, jumps from built-in chains, IP sets.
Must not know: what the rules are for, and the kernel.

A rule is what `iptables-save` prints for it behind `-A CHAIN`, counters apart (the legacy and the nft variant
of iptables 1.8.9 print the same for everything we write), so that rules that did not change
compare as text. Likewise the elements of a set are those that `ipset save` prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k8snetc.ir.types import Family, Origin

PREFIX = "K8SNETC-"
"""All chains and sets that start with this are ours; nothing else in the kernel is."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours with its rules in order, each without its beginning `-A NAME`: ` -d 10.0.0.1/32 ... -j TARGET`.

    A text and no more, for the sake of 100,000 endpoints; the manifest object behind a rule is in its comment.
    """

    name: str
    rules: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The rules, whole, as iptables-save prints them."""
        return tuple([f"-A {self.name}{rule}" for rule in self.rules])


@dataclass(frozen=True, slots=True)
class Jump:
    """Our one rule in a built-in chain. It belongs first in its chain.

    `chain` is the built-in chain; `text` is the line as iptables-save prints it (`-A FORWARD -j
    K8SNETC-FORWARD`). Its text never depends on the program, so that a jump, once there, stays.
    """

    chain: str
    text: str

    @property
    def insert(self) -> str:
        """The line for iptables-restore that puts the jump first in its chain."""
        return f"-I {self.chain} 1{self.text.removeprefix('-A ' + self.chain)}"

    @property
    def delete(self) -> str:
        """The line for iptables-restore that removes the jump; it fails where there is none."""
        return f"-D{self.text.removeprefix('-A')}"


@dataclass(frozen=True, slots=True)
class Table:
    """Our part of one table (`nat`, `filter`): chains sorted by name, jumps in the order of the hooks."""

    name: str
    chains: tuple[Chain, ...]
    jumps: tuple[Jump, ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Our part of one family's tables, sorted by name."""

    family: Family
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class IpSet:
    """An IP set.

    `type` is ipset's word (`hash:net`); `options` are the creation parameters that we choose, as `ipset
    save` prints them, without those that the kernel chooses (hashsize, bucketsize, initval). `elements`
    are sorted, as `ipset save` prints them after the name. `dynamic`: rules add and remove elements at run
    time (affinity), so its content is neither written nor compared; it must survive as long as its name.
    The name of a set that is not dynamic is derived from its content: a changed set is a new set.
    """

    name: str
    type: str
    family: Family
    options: str
    elements: tuple[str, ...] = ()
    dynamic: bool = False
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def create(self) -> str:
        """The line for ipset restore that makes the set."""
        inet = "inet" if self.family is Family.IPV4 else "inet6"
        return f"create {self.name} {self.type} family {inet} {self.options}".rstrip()


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel parameter that the rules rely on, by its dotted name, as `sysctl` prints it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Xtables:
    """Everything that iptables, ip6tables and ipset hold for us. Sets are sorted by name."""

    rulesets: tuple[Ruleset, ...] = ()
    sets: tuple[IpSet, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
