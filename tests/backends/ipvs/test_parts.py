"""Parts of the IPVS back end without a kernel: gaps, marks, states, the order of changes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from ipaddress import ip_address

import pytest

from k8snetc.backends.base import UnsupportedError
from k8snetc.backends.ipvs import changes
from k8snetc.backends.ipvs.lower import lower
from k8snetc.backends.ipvs.model import canonical
from k8snetc.backends.ipvs.state import (
    State,
    parse_connections,
    parse_services,
    print_state,
    read_state,
    state_of,
)
from k8snetc.ir.types import (
    Affinity,
    Balance,
    Balancer,
    Direction,
    Endpoint,
    Enforcement,
    Exposure,
    Family,
    Frontend,
    Node,
    Origin,
    Program,
    Protocol,
    Refusal,
    Route,
    Who,
)

ORIGIN = Origin("web.yaml", 3, "Service", "shop", "web")
VIP = ip_address("198.51.100.1")


def balancer(*endpoints: str, scheduler: str = "", forwarding: str = "", affinity: int = 0) -> Balancer:
    places = (e.rpartition(":") for e in endpoints)
    return Balancer(
        "web",
        Family.IPV4,
        Protocol.TCP,
        tuple(Endpoint(ip_address(a), int(p)) for a, _, p in places),
        Affinity("web", affinity) if affinity else None,
        scheduler,
        forwarding,
        ORIGIN,
    )


def program(web: Balancer, *, exposure: Exposure = Exposure.EXTERNAL_IP, **more: object) -> Program:
    address = None if exposure is Exposure.NODE_PORT else VIP
    port = 30080 if address is None else 80
    frontend = Frontend(
        exposure, Family.IPV4, address, Protocol.TCP, port, (Route(Who.ANY, Balance("web")),), origin=ORIGIN
    )
    made = {"node": Node("w1", (Family.IPV4,)), "balancers": (web,), "frontends": (frontend,)} | more
    return Program(**made)  # type: ignore[arg-type]  # the caller's words


def gaps_of(one: Program, scheduler: str = "rr") -> list[str]:
    with pytest.raises(UnsupportedError) as error:
        lower(one, scheduler=scheduler)
    return [f"{g.what}; {g.hint}" for g in error.value.gaps]


# --- gaps ---


def test_all_gaps_are_named_at_once() -> None:
    wrong = balancer("10.0.0.1:8080", scheduler="fastest", forwarding="teleport")
    found = gaps_of(program(wrong), scheduler="rr:fast")
    assert len(found) == 3
    assert "'fast' of the scheduler rr" in found[0]
    assert "scheduler 'fastest'; use one of rr, wrr" in found[1]
    assert "method 'teleport'; use one of masq, direct, tunnel" in found[2]


@pytest.mark.parametrize("method", ["direct", "tunnel"])
def test_what_is_not_rewritten_keeps_its_port(method: str) -> None:
    (gap,) = gaps_of(program(balancer("10.0.0.1:8080", "10.0.0.2:80", forwarding=method)))
    assert "its port 80 is 8080 at 10.0.0.1" in gap
    lower(program(balancer("10.0.0.1:80", forwarding=method)))


def test_what_is_not_rewritten_can_not_be_judged_by_policy() -> None:
    web = balancer("10.0.0.1:80", forwarding="direct")
    shut = Enforcement("shut", Family.IPV4, Direction.INGRESS, (ip_address("10.0.0.1"),))
    (gap,) = gaps_of(program(web, enforcements=(shut,)))
    assert "a NetworkPolicy protects 10.0.0.1" in gap


def test_localhost_node_ports_are_refused() -> None:
    node = Node("w1", (Family.IPV4,), localhost_nodeports=True)
    (gap,) = gaps_of(program(balancer("10.0.0.1:80"), exposure=Exposure.NODE_PORT, node=node))
    assert "127.0.0.1" in gap


# --- services and marks ---


def services(one: Program, **options: str) -> dict[str, str]:
    return {s.key: s.options for s in lower(one, **options).services}  # type: ignore[arg-type]  # only scheduler


def test_gaps_survive_the_way_out_of_a_process() -> None:
    with pytest.raises(UnsupportedError) as refused:
        lower(program(balancer("10.244.1.2:8080", scheduler="random")))
    copy = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 - our own
    assert (copy.backend, copy.gaps, str(copy)) == ("ipvs", refused.value.gaps, str(refused.value))


def test_schedulers_weights_and_affinity() -> None:
    assert services(program(balancer("10.0.0.1:80"))) == {"-t 198.51.100.1:80": "-s rr"}
    assert services(program(balancer("10.0.0.1:80")), scheduler="lc") == {"-t 198.51.100.1:80": "-s lc"}
    own = balancer("10.0.0.1:80", scheduler="sh:sh-port,sh-fallback", affinity=60)
    assert services(program(own)) == {"-t 198.51.100.1:80": "-s sh -p 60 -b sh-fallback,sh-port"}
    heavy = Balancer(
        "web",
        Family.IPV4,
        Protocol.TCP,
        (Endpoint(ip_address("10.0.0.1"), 80), Endpoint(ip_address("10.0.0.2"), 80, weight=2)),
    )
    assert services(program(heavy)) == {"-t 198.51.100.1:80": "-s wrr"}


def test_a_mark_is_stable_and_leaves_the_bits_of_others_alone() -> None:
    one = services(program(balancer("10.0.0.1:80"), exposure=Exposure.NODE_PORT))
    other = services(program(balancer("10.9.9.9:99"), exposure=Exposure.NODE_PORT))
    assert one == other
    ((key, _),) = one.items()
    mark = int(key.removeprefix("-f "))
    assert mark & 0x40000000
    assert not mark & 0x8000F000


def test_affinity_of_a_mark_is_hashing() -> None:
    one = services(program(balancer("10.0.0.1:80", affinity=60), exposure=Exposure.NODE_PORT))
    assert list(one.values()) == ["-s mh -b mh-fallback"]


def test_a_refusing_frontend_is_a_service_without_servers() -> None:
    frontend = Frontend(
        Exposure.EXTERNAL_IP, Family.IPV4, VIP, Protocol.TCP, 80, (Route(Who.ANY, Refusal.REJECT),)
    )
    model = lower(Program(Node("w1", (Family.IPV4,)), frontends=(frontend,)))
    assert [(s.key, s.destinations) for s in model.services] == [("-t 198.51.100.1:80", ())]


def test_the_nodes_own_address_is_not_put_on_the_device() -> None:
    node = Node("w1", (Family.IPV4,), (VIP,))
    assert lower(program(balancer("10.0.0.1:80"), node=node)).addresses == ()
    assert lower(program(balancer("10.0.0.1:80"))).addresses == ("198.51.100.1/32",)


# --- states ---

SHOWN = """\
-A -t 10.96.0.1:80 -s rr -p 10800
-a -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 1
-a -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 0
-A -f 1798832130 -6 -s sh -b sh-port,sh-fallback
-a -f 1798832130 -6 -r [fd01::2]:8080 -m -w 3
-A --sctp-service 10.0.0.1:81 -s rr
"""
TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr  persistent 2700000 FFFFFFFF
  -> 0A010001:1F90      Masq    1      4          1
  -> 0A010002:1F90      Masq    0      2          1
FWM  6B380002 rr
  -> [fd01:0000:0000:0000:0000:0000:0000:0002]:1F90      Masq    0      0          7
"""


def test_services_are_read_as_ipvsadm_shows_them() -> None:
    connections = parse_connections(TABLE)
    assert connections["-t 10.96.0.1:80", "10.1.0.2:8080"] == 3
    assert connections["-f 1798832130 -6", "[fd01::2]:8080"] == 7
    state = parse_services(SHOWN, connections)
    assert state.services["-t 10.96.0.1:80"].destinations == {"10.1.0.1:8080": ("-m", 1)}
    assert state.leaving == {"-t 10.96.0.1:80": {"10.1.0.2:8080": 3}}
    assert state.services["-f 1798832130 -6"].options == canonical("-b sh-fallback,sh-port -s sh")
    assert state.services["--sctp-service 10.0.0.1:81"].destinations == {}


def test_a_line_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of ipvsadm"):
        parse_services("TCP 10.0.0.1:80\n")


def test_a_dumped_state_is_read_back() -> None:
    state = state_of(lower(program(balancer("10.0.0.1:80", affinity=60))))
    assert read_state(print_state(state)) == state
    assert read_state(print_state(State())) == State()
    assert print_state(State(addresses=frozenset())) != print_state(State())


# --- changes ---


def test_servers_come_before_others_go_and_tcp_servers_go_gracefully() -> None:
    old = state_of(lower(program(balancer("10.0.0.1:80", "10.0.0.2:80"))))
    new = state_of(lower(program(balancer("10.0.0.2:80", "10.0.0.3:80"))))
    assert changes.service_lines(old, new) == [
        "-a -t 198.51.100.1:80 -r 10.0.0.3:80 -m -w 1",
        "-e -t 198.51.100.1:80 -r 10.0.0.1:80 -m -w 0",
    ]
    assert not changes.removal_lines(old, new)
    (change,) = changes.changes(old, new)
    assert change.removed == ("-r 10.0.0.1:80 -m -w 1",)
    assert change.added == ("-r 10.0.0.3:80 -m -w 1",)


def test_no_hashing_leads_to_a_server_that_leaves() -> None:
    """It has weight 0, and IPVS refuses who is hashed to it: unless there is a fallback, or the server is gone."""
    key = "-t 198.51.100.1:80"
    for scheduler in ("mh", "sh", "mh:mh-port"):
        options = state_of(lower(program(balancer("10.0.0.1:80", scheduler=scheduler)))).services[key].options
        assert f"{scheduler[:2]}-fallback" in options
    old, new = (state_of(lower(program(balancer(e, scheduler="dh")))) for e in ("10.0.0.1:80", "10.0.0.2:80"))
    assert changes.service_lines(old, new)[-1] == f"-d {key} -r 10.0.0.1:80"


def test_a_udp_server_goes_at_once_also_behind_a_node_port() -> None:
    for protocol, line in (
        (Protocol.UDP, "-d {key} -r 10.0.0.1:80"),
        (Protocol.TCP, "-e {key} -r 10.0.0.1:80 -m -w 0"),
    ):
        old, new = (
            program(replace(balancer(e), protocol=protocol), exposure=Exposure.NODE_PORT)
            for e in ("10.0.0.1:80", "10.0.0.2:80")
        )
        was, will = (
            state_of(lower(replace(p, frontends=tuple(replace(f, protocol=protocol) for f in p.frontends))))
            for p in (old, new)
        )
        (key,) = was.services
        assert key.startswith("-f ")
        assert changes.service_lines(was, will)[-1] == line.format(key=key)


def test_a_server_that_leaves_comes_back_or_is_collected() -> None:
    goal = state_of(lower(program(balancer("10.0.0.1:80", "10.0.0.2:80"))))
    key = "-t 198.51.100.1:80"
    text = f"-A {key} -s rr\n-a {key} -r 10.0.0.2:80 -m -w 1\n"
    leaving = "".join(f"-a {key} -r 10.0.0.{n}:80 -m -w 0\n" for n in (1, 8, 9))
    live = parse_services(text + leaving, {(key, "10.0.0.9:80"): 5})
    assert changes.service_lines(live, goal) == [f"-e {key} -r 10.0.0.1:80 -m -w 1"]
    assert changes.collected_lines(live, goal) == [f"-d {key} -r 10.0.0.8:80"]


def test_servers_that_leave_are_no_difference() -> None:
    key = "-t 198.51.100.1:80"
    text = f"-A {key} -s rr\n-a {key} -r 10.0.0.2:80 -m -w 1\n"
    assert parse_services(text) == parse_services(text + f"-a {key} -r 10.0.0.1:80 -m -w 0\n")


def test_addresses_come_with_the_device_and_go_with_it() -> None:
    none, some = State(), State(addresses=frozenset({"10.0.0.1/32", "fd00::1/128"}))
    assert changes.address_lines(none, some) == (
        [
            "link add k8snetc0 type dummy",
            "address replace 10.0.0.1/32 dev k8snetc0",
            "address replace fd00::1/128 dev k8snetc0 nodad preferred_lft 0",
        ],
        [],
    )
    assert changes.address_lines(some, none) == ([], ["link delete k8snetc0"])
    assert changes.changes(some, none)[0].removed == ("k8snetc0", "10.0.0.1/32", "fd00::1/128")


def test_old_kernels_get_another_reuse_of_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    from k8snetc.backends.ipvs import install
    from k8snetc.backends.target import InstallOptions

    target = install.IpvsTarget(InstallOptions())
    wanted = program(balancer("10.244.1.2:80"))
    for release, value in (((5, 4), "0"), ((5, 9), "1"), ((6, 1), "1")):
        monkeypatch.setattr(install, "_release", lambda release=release: release)
        assert target.desired(wanted).sysctls["net.ipv4.vs.conn_reuse_mode"] == value


def test_only_what_is_idle_is_collected() -> None:
    from k8snetc.backends.ipvs.install import IpvsTarget
    from k8snetc.backends.target import InstallOptions, LeftBehind

    text = (
        "-A -t 10.96.0.1:80 -s rr\n-a -t 10.96.0.1:80 -r 10.244.1.1:80 -m -w 0\n"
        "-a -t 10.96.0.1:80 -r 10.244.1.2:80 -m -w 0\n-a -t 10.96.0.1:80 -r 10.244.1.3:80 -m -w 1\n"
    )
    live = parse_services(text, {("-t 10.96.0.1:80", "10.244.1.2:80"): 3})
    target = IpvsTarget(InstallOptions())
    assert target.left_behind(live) == LeftBehind(idle=1, busy=1)
    assert [s.size for s in target.collecting(live)] == [1]
    assert changes.collected_lines(live, live) == ["-d -t 10.96.0.1:80 -r 10.244.1.1:80"]
    assert not target.collecting(State())


def test_strict_arp_is_put_back_at_the_end_and_not_taken_from_others() -> None:
    from k8snetc.backends.ipvs.install import IpvsTarget
    from k8snetc.backends.target import InstallOptions

    ignore, vs = "net.ipv4.conf.all.arp_ignore", "net.ipv4.vs.conntrack"
    wanted = program(balancer("10.244.1.2:80"))
    before = State(sysctls={ignore: "0", vs: "0"})
    loose, strict = (IpvsTarget(InstallOptions(ipvs_strict_arp=on)) for on in (False, True))
    assert strict.grounded(strict.desired(wanted), before).sysctls[ignore] == "1"
    assert ignore not in loose.grounded(loose.desired(wanted), before).sysctls
    for target in (loose, strict):
        gone = target.grounded(target.empty(), before).sysctls
        assert (gone[ignore], gone[vs]) == ("0", "0")


def test_pods_whose_packets_no_rule_sees_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    from k8snetc.backends.base import Gap
    from k8snetc.backends.ipvs import install
    from k8snetc.backends.target import InstallOptions

    gap = Gap("the pod 10.244.1.2 is behind the bridge cbr0", "modprobe br_netfilter", ORIGIN)
    monkeypatch.setattr(install, "unjudged_bridges", lambda _: iter([gap]))
    with pytest.raises(UnsupportedError) as refused:
        install.IpvsTarget(InstallOptions()).desired(program(balancer("10.244.1.2:80")))
    assert refused.value.gaps == (gap,)
