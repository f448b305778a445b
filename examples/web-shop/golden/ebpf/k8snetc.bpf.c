/* Made by k8snetc from manifests: what this node does to packets, and no more. Do not edit.

   On: IPv4, frontends4, nodeports4, affinity4, refuses4, rejects4, detects4, drop_invalid, counters
   Off: sources4, datagrams4, policy4, IPv6, sctp, localhost, detects_interface, port_sets */

/* --- types: what the kernel passes in, as its ABI defines it; no kernel headers are needed ------------- */

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PROG_ARRAY = 3, BPF_MAP_TYPE_PERCPU_HASH = 5,
       BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_LRU_HASH = 9, BPF_MAP_TYPE_LPM_TRIE = 11,
       BPF_MAP_TYPE_RINGBUF = 27 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_F_NO_PREALLOC = 1, BPF_F_RECOMPUTE_CSUM = 1, BPF_F_INGRESS = 1,
       BPF_F_PSEUDO_HDR = 16, BPF_F_MARK_MANGLED_0 = 32 };
#define BPF_F_CURRENT_NETNS (-1L)

/* --- helpers: what the kernel offers to programs, by number (enum bpf_func_id of linux/bpf.h), and the words with which
   libbpf finds maps and programs in the object. Written out, so that clang alone compiles this file. ----------- */

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define HELPER static __attribute__((unused))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(x) ((__be16)__builtin_bswap16(x))
#define bpf_htonl(x) ((__be32)__builtin_bswap32(x))
#else
#define bpf_htons(x) ((__be16)(x))
#define bpf_htonl(x) ((__be32)(x))
#endif
#define bpf_ntohs(x) ((__u16)bpf_htons(x))
#define bpf_ntohl(x) ((__u32)bpf_htonl(x))

struct __sk_buff;
HELPER void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
HELPER long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
HELPER long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
HELPER __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
HELPER __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
HELPER long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) = (void *)26;
/* Calls `turn(i, state)` for i = 0, 1... until it returns 1, at most `turns` times. Other than a loop, the verifier looks at
   it once and not once for each turn, which is most of the time that loading a program takes. */
HELPER long (*bpf_loop)(__u32 turns, void *turn, void *state, __u64 flags) = (void *)181;
HELPER long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 length,
				   __u64 flags) = (void *)9;
HELPER long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
HELPER __s64 (*bpf_csum_diff)(__be32 *from, __u32 from_size, __be32 *to, __u32 to_size, __u32 seed) = (void *)28;
HELPER long (*bpf_skb_change_tail)(struct __sk_buff *skb, __u32 length, __u64 flags) = (void *)38;
HELPER long (*bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 difference, __u32 mode, __u64 flags) = (void *)50;

struct bpf_sock;
struct bpf_sock_addr;
struct bpf_sock_tuple;
struct bpf_fib_lookup;
struct bpf_redir_neigh;
HELPER __u32 (*bpf_get_prandom_u32)(void) = (void *)7;
HELPER long (*bpf_l3_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)10;
HELPER long (*bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
HELPER __u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
HELPER long (*bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *fib, int size, __u32 flags) = (void *)69;
HELPER struct bpf_sock *(*bpf_sk_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns,
					     __u64 flags) = (void *)84;
HELPER struct bpf_sock *(*bpf_sk_lookup_udp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns,
					     __u64 flags) = (void *)85;
HELPER long (*bpf_sk_release)(void *socket) = (void *)86;
HELPER __u64 (*bpf_get_netns_cookie)(void *ctx) = (void *)122;
HELPER long (*bpf_redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *next, int size, __u64 flags) = (void *)152;
HELPER int (*bpf_set_retval)(int value) = (void *)187;

/* The packet, as tc programs see it (struct __sk_buff of linux/bpf.h, its first part). */
struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	__u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
};

/* The address that a socket is about to use (struct bpf_sock_addr of linux/bpf.h, its first part). */
struct bpf_sock_addr {
	__u32 user_family, user_ip4, user_ip6[4], user_port, family, type, protocol, msg_src_ip4, msg_src_ip6[4];
	struct bpf_sock *sk __attribute__((aligned(8)));
};

/* A socket (struct bpf_sock of linux/bpf.h, its first part). */
struct bpf_sock {
	__u32 bound_dev_if, family, type, protocol, mark, priority, src_ip4, src_ip6[4];
	__u32 src_port; /* 0: not chosen yet */
};

/* A look-up of a socket by addresses and ports (struct bpf_sock_tuple of linux/bpf.h). */
struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr[1], daddr[1];
			__be16 sport, dport;
		} ipv4;
		struct {
			__be32 saddr[4], daddr[4];
			__be16 sport, dport;
		} ipv6;
	};
};

/* A route look-up (struct bpf_fib_lookup of linux/bpf.h). */
struct bpf_fib_lookup {
	__u8 family, l4_protocol;
	__be16 sport, dport;
	__u16 tot_len;
	__u32 ifindex;
	__be32 flowinfo;
	__be32 src[4];
	__be32 dst[4];
	__be16 h_vlan_proto, h_vlan_TCI;
	__u8 smac[6], dmac[6];
};

/* The next hop of a packet (struct bpf_redir_neigh of linux/bpf.h). */
struct bpf_redir_neigh {
	__u32 nh_family;
	__be32 nh[4];
};

struct ipv4 {
	__u8 version_ihl, tos;
	__be16 total_length, id, fragment;
	__u8 ttl, protocol;
	__sum16 checksum;
	__be32 source, destination;
};

enum { ETH_ALEN = 6, ETH_HLEN = 14, ETH_P_IP = 0x0800, ETH_P_ARP = 0x0806, ETH_P_IPV6 = 0x86DD };
enum { IPPROTO_HOPOPTS = 0, IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_ROUTING = 43,
       IPPROTO_FRAGMENT = 44, IPPROTO_AH = 51, IPPROTO_ICMPV6 = 58, IPPROTO_DSTOPTS = 60, IPPROTO_SCTP = 132 };
enum { AF_INET = 2, AF_INET6 = 10, ECONNREFUSED = 111 };
enum { PASS = -1, DROP = 2 }; /* verdicts of tc programs: TC_ACT_UNSPEC hands on to the next program, TC_ACT_SHOT */

#define SECOND 1000000000ULL
#define memcpy __builtin_memcpy
#define memset __builtin_memset

/* Seconds since boot, by the clock that costs nothing to read. */
static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() / SECOND;
}

/* What is true of the whole program; set when it is loaded, constant for the verifier. */
struct config {
	__u64 netns;                     /* cookie of the node's network namespace */
	__u32 generation;                /* which apply this program belongs to */
	__u32 loopback;                  /* index of the node's loopback interface */
	__u16 nodeport_first, nodeport_last; /* no NodePort lies outside */
	__u16 masquerade_first, masquerade_last; /* ports for translated sources: free of the node's own sockets */
};
const volatile struct config config SEC(".rodata.config");

/* An interface of the node: what it is, and the address that translated packets carry when they leave by it. */
struct device {
	__be32 address4;
	__be32 address6[4];
	__u8 mac[ETH_ALEN];
	__u8 cluster; /* packets that arrive here are from pods of the cluster */
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/* A short way between two programs: this packet was made here, do not judge it. Never leaves the node. */
enum { MARK_OWN = 0x6b386e63 };
/* The same, as `tc_index`: this packet of the node's own was translated and routed again. */
enum { INDEX_AGAIN = 0x6b38 };

enum { SENDER_POD, SENDER_OUTSIDE, SENDER_NODE };

/* What a service does with a client. */
enum { ACTION_BALANCE, ACTION_REJECT, ACTION_DROP, ACTION_PACKETS };
struct route {
	__u32 first, count;  /* its endpoints: this many slots of the table, from here */
	__u8 action;
	__u8 masquerade;
	__u8 pad[2];
};

/* What a client connects to. Routes: by who sends, [is a pod of the cluster + 2 * is the node].
   sockets: for a socket of the node [1] or of a pod [0], where who sends can make no difference. */
struct frontend {
	__u32 service; /* place of its counters */
	__u32 sources; /* set of the clients that may use it; 0: everybody */
	__u32 affinity; /* memory of clients that it shares; 0: none */
	__u32 timeout;  /* of the affinity, seconds */
	struct route routes[4];
	struct route sockets[2];
};

enum { CLOSED = 60, FORGOTTEN = 5 * 24 * 3600 }; /* seconds without a packet until a port may be taken over */
/* To find a port: so many tries in all. The first ones look for a port that is free, the others also take that of a
   connection that both sides have ended, and only the last ones that of one for which the endpoint waits (TIME_WAIT). */
enum { TRIES = 32, EASY = 8, HARD = 24 };
enum { QUIET = 2, SINGLE = 30 }; /* ... if it is silent for so many seconds; datagrams, for so many */
/* Which side has ended a connection. */
enum { ENDED_ASKING = 1, ENDED_ANSWERING = 2, ENDED = 3, ANSWERING_FIRST = 4 };
enum { CLIENT_PORTS = 32768 }; /* systems choose the ports of clients from here on (ip_local_port_range) */

/* flags of a connection's entry */
enum {
	CONN_REPLY = 1,            /* the key is how answers look */
	CONN_SET_DESTINATION = 2,  /* a packet that arrives gets this destination */
	CONN_SET_SOURCE = 4,       /* a packet that departs gets this source */
	CONN_MASQUERADE = 8,       /* ... which is still to be chosen, where it departs */
	CONN_NODE = 16,            /* the node itself opened it */
	CONN_ARRIVES = 32,         /* a connection's packets look like the key when they arrive */
	CONN_DEPARTS = 64,         /* a connection's packets look like the key between arrival and departure */
};

/* --- counters: what became of connections and of packets that did not pass. For people; nothing is decided by them.
   Counted once for a connection, or for a packet that ends here: what passes by an entry that is known costs nothing.
   The tables outlive a generation, so their keys and the numbers below must mean the same in all of them. ------- */

enum {
	COUNT_OPENED = 0,         /* connections that got an endpoint by their first packet */
	COUNT_SOCKETS = 1,        /* connections, or unconnected sockets' datagrams, that got one at the socket */
	COUNT_ALLOWED = 2,        /* connections that policy let pass, once in each direction and generation */
	COUNT_DENIED = 3,         /* packets that policy denied */
	COUNT_REJECTED = 4,       /* packets or sockets for a service without endpoints, or a port that it does not have */
	COUNT_NOT_IN_SOURCES = 5, /* packets of clients that are in no source range */
	COUNT_NO_ENDPOINT = 6,    /* packets for a service that has no endpoint for this client */
	COUNT_NO_SERVICE = 7,     /* packets for service addresses that no service has */
	COUNT_INVALID = 8,        /* TCP packets with flags that never stand together */
	COUNT_MALFORMED = 9,      /* packets that can't be read */
	COUNT_OTHER = 10,         /* frames between pods that are neither IP nor ARP */
	COUNT_NO_ROOM = 11,       /* packets for which a table had no room, or no port to leave with was free */
	COUNT_NO_WAY = 12,        /* packets that could not be rewritten or routed again */
	COUNTS = 16
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} verdict_counts SEC(".maps");

/* Counts, and returns the verdict that it was given. */
__noinline int counted(int verdict, __u32 why)
{
	__u64 *count = bpf_map_lookup_elem(&verdict_counts, &why);

	if (count)
		__sync_fetch_and_add(count, 1); /* a packet may come in between a socket's call and its end */
	return verdict;
}

enum { SERVICE_OPENED, SERVICE_SOCKETS, SERVICE_REJECTED, SERVICE_DROPPED };

struct service_count {
	__u64 by[4];
};

/* A frontend's number -> its counters; made when it is used for the first time. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct service_count);
} service_counts SEC(".maps");

__noinline int count_service(__u32 service, __u32 what)
{
	struct service_count none = {}, *count = bpf_map_lookup_elem(&service_counts, &service);

	if (!count) {
		bpf_map_update_elem(&service_counts, &service, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&service_counts, &service);
	}
	if (count)
		__sync_fetch_and_add(&count->by[what & 3], 1);
	return 0;
}

/* What a part of the program says to the next, beside PASS and DROP. */
enum { CONTINUE = 0, REJECT = -2, SERVED = -3 };

/* --- tables, IPv4: filled from the program before the switch, apart from the shared ones ----------------- */

struct address4 {
	__be32 word[1];
};

static __always_inline int same4(const struct address4 *a, const struct address4 *b)
{
	return a->word[0] == b->word[0];
}

/* Shared between generations: connections, by the packets' addresses at the hook that asks. */
struct conn_key4 {
	struct address4 source, destination;
	__be16 source_port, destination_port;
	__u8 protocol, pad[3];
};

struct conn4 {
	struct address4 address; /* the new destination of what arrives, or the new source of what departs */
	__be16 port;
	__be16 arrive_port; /* the new source port of what arrives; 0: it stays */
	__be16 depart_port; /* the new destination port of what departs; 0: it stays */
	__u8 flags;
	__u8 closing;       /* which sides have ended it (ENDED_*) */
	__u32 generation; /* that made it */
	__u32 seen;       /* seconds since boot */
	__u32 device;     /* by which the first packet came in, or the node's own was about to leave */
	__u32 ingress_judged, egress_judged; /* generation whose policy let it pass */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct conn_key4);
	__type(value, struct conn4);
} connections4 SEC(".maps");

/* Shared: both ports of the datagrams whose later fragments are still to come. */
struct fragment_key4 {
	struct address4 source, destination;
	__be32 id;
	__u8 protocol, pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key4);
	__type(value, __u32);
} fragments4 SEC(".maps");

/* The node's own addresses; 1: NodePorts are served there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address4);
	__type(value, __u32);
} node_addresses4 SEC(".maps");

struct network4 {
	__u32 length; /* of the prefix, in bits */
	struct address4 address;
};

/* Address (zero: the node's own), port and protocol -> what a service does there. */
struct frontend_key4 {
	struct address4 address;
	__be16 port;
	__u8 protocol, pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct frontend_key4);
	__type(value, struct frontend);
} frontends4 SEC(".maps");

/* The endpoints of each balancer stand side by side. */
struct endpoint4 {
	struct address4 address;
	__be16 port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct endpoint4);
} endpoints4 SEC(".maps");

/* Every endpoint of every service: connections that clients open to one directly are told from those by a service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct frontend_key4);
	__type(value, __u32);
} targets4 SEC(".maps");

/* Shared: what a socket was told to use instead of the service, so that it is told the service's address.
   Port 0: it talks to that endpoint directly. */
struct socket_key4 {
	__u64 cookie;
	struct address4 address;
	__be16 port;
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_key4);
	__type(value, struct endpoint4);
} sockets4 SEC(".maps");

/* Shared: which endpoint a client had last. */
struct affinity_key4 {
	__u32 affinity;
	struct address4 client;
};

struct affinity4 {
	struct endpoint4 endpoint;
	__u64 seen; /* nanoseconds since boot */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key4);
	__type(value, struct affinity4);
} affinity4 SEC(".maps");

/* Whether an endpoint is still one of those that start at slot `first`. */
struct member_key4 {
	__u32 first;
	struct endpoint4 endpoint;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct member_key4);
	__type(value, __u32);
} members4 SEC(".maps");

/* Service addresses: what no frontend defines there is rejected or dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct network4);
	__type(value, __u32);
} refusals4 SEC(".maps");

/* --- parse, IPv4: which connection a packet belongs to ------------------------------------------------- */

struct packet4 {
	struct conn_key4 key; /* of an ICMP error: of a packet that goes the same way as the error */
	struct address4 outer_source, outer_destination;
	__u16 header;     /* offset of the transport header */
	__u16 inner;      /* ICMP error: offset of the IP header in it, otherwise 0 */
	__u16 inner_header; /* ... and of the transport header in that */
	__u8 protocol;    /* of the packet itself */
	__u8 first;       /* asks for a connection: TCP SYN, SCTP INIT */
	__u8 last;        /* 1: ends one side of it (TCP FIN), 2: both (TCP RST, SCTP ABORT and SHUTDOWN COMPLETE) */
	__u8 moved;       /* got another destination */
	__u8 answers_node; /* belongs to an answer to a connection of the node's own */
	__u8 fragment;    /* 1: the first one, 2: a later one, without transport header */
	__u8 echo;        /* ICMP echo: its identifier stands for the ports */
	__u8 invalid;     /* TCP: flags that never stand together */
	__u8 link;        /* talk of neighbours on the link, which never leaves it and is below any policy */
	__u16 length;     /* of the transport part, bytes */
};

/* Reads the ports of a TCP, UDP or SCTP header, or an echo's identifier. */
static __always_inline int ports4(struct __sk_buff *skb, struct packet4 *p, __u32 offset, __u8 protocol)
{
	__be16 port[2] = {};

	p->key.protocol = protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, port, sizeof(port)))
		return -1;
	p->key.source_port = port[0];
	p->key.destination_port = port[1];
	return 0;
}

/* Reads a packet. Returns 0, or -1 when it is malformed. */
__noinline int parse4(struct __sk_buff *skb, struct packet4 *p)
{
	struct ipv4 ip;
	__be32 id = 0;
	__u8 protocol;
	int offset;

	if (!p)
		return -1;
	memset(p, 0, sizeof(*p));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	__u32 length = (ip.version_ihl & 0xf) * 4;

	if (ip.version_ihl >> 4 != 4 || length < sizeof(ip) || bpf_ntohs(ip.total_length) < length ||
	    bpf_ntohs(ip.total_length) + ETH_HLEN > skb->len)
		return -1;
	offset = ETH_HLEN + length;
	protocol = ip.protocol;
	id = ip.id;
	if (ip.fragment & bpf_htons(0x1fff))
		p->fragment = 2;
	else if (ip.fragment & bpf_htons(0x2000))
		p->fragment = 1;
	p->key.source.word[0] = ip.source;
	p->key.destination.word[0] = ip.destination;
	p->outer_source = p->key.source;
	p->outer_destination = p->key.destination;
	p->protocol = protocol;
	p->key.protocol = protocol;
	p->header = offset;
	p->length = bpf_ntohs(ip.total_length) - length;

	if (p->fragment) {
		struct fragment_key4 f = {.source = p->key.source, .destination = p->key.destination, .id = id,
					    .protocol = protocol};

		if (p->fragment == 2) {
			__u32 *known = bpf_map_lookup_elem(&fragments4, &f);

			if (known)
				memcpy(&p->key.source_port, known, sizeof(*known));
			return 0;
		}
		if (ports4(skb, p, offset, protocol))
			return -1;
		__u32 both;

		memcpy(&both, &p->key.source_port, sizeof(both));
		bpf_map_update_elem(&fragments4, &f, &both, BPF_ANY);
	} else if (ports4(skb, p, offset, protocol)) {
		return -1;
	}
	if (protocol == IPPROTO_TCP) {
		__u8 flags;

		if (bpf_skb_load_bytes(skb, offset + 13, &flags, 1))
			return -1;
		p->first = (flags & 0x17) == 0x02; /* SYN without ACK, FIN, RST */
		p->last = flags & 0x04 ? 2 : flags & 0x01;
		/* One bit for each combination of FIN, SYN, RST, ACK and URG that means something: SYN, SYN+URG, SYN+ACK,
		   RST, RST+ACK, FIN+ACK, FIN+ACK+URG, ACK, ACK+URG. */
		flags = (flags & 0x07) | (flags & 0x30) >> 1;
		p->invalid = !((1u << 0x02 | 1u << 0x12 | 1u << 0x0a | 1u << 0x04 | 1u << 0x0c | 1u << 0x09 | 1u << 0x19 |
				1u << 0x08 | 1u << 0x18) & (1u << (flags & 0x1f)));
	} else if (protocol == IPPROTO_SCTP) {
		__u8 chunk;

		if (bpf_skb_load_bytes(skb, offset + 12, &chunk, 1))
			return -1;
		p->first = chunk == 1; /* INIT */
		p->last = chunk == 6 || chunk == 14 ? 2 : 0;
	} else if (protocol == IPPROTO_ICMP) {
		struct address4 sender;
		struct ipv4 in;
		__u8 h[8];
		int at = offset + 8;

		if (bpf_skb_load_bytes(skb, offset, h, sizeof(h)))
			return -1;
		if (h[0] == 8 || h[0] == 0) {
			memcpy(&p->key.source_port, h + 4, 2);
			p->key.destination_port = p->key.source_port;
			p->echo = 1;
			return 0;
		}
		if (h[0] != 3 && h[0] != 11 && h[0] != 12)
			return 0;
		/* An error: it belongs to the connection of the packet inside, which went the other way. One that goes to
		   somebody else than that packet's sender belongs to none. */
		if (bpf_skb_load_bytes(skb, at, &in, sizeof(in)))
			return -1;
		memcpy(&sender, &in.source, sizeof(sender));
		if (!same4(&sender, &p->outer_destination))
			return 0;
		if (in.version_ihl >> 4 != 4 || (in.version_ihl & 0xf) < 5)
			return -1;
		p->inner_header = at + (in.version_ihl & 0xf) * 4;
		if (in.fragment & bpf_htons(0x1fff))
			return 0;
		protocol = in.protocol;
		p->inner = at;
		if (ports4(skb, p, p->inner_header, protocol))
			return -1;
		if (protocol == IPPROTO_ICMP) {
			if (bpf_skb_load_bytes(skb, p->inner_header, h, sizeof(h)))
				return -1;
			memcpy(&p->key.source_port, h + 4, 2);
			p->key.destination_port = p->key.source_port;
		}
		__be16 port = p->key.source_port;

		p->key.source_port = p->key.destination_port;
		p->key.destination_port = port;
		memcpy(&p->key.source, &in.destination, sizeof(p->key.source));
		memcpy(&p->key.destination, &in.source, sizeof(p->key.destination));
	}
	return 0;
}

/* --- rewrite, IPv4: another source or destination, with every checksum that covers it ------------------- */

/* Swaps `old` for `new` in the checksum at `offset`, for a change of an address (in the pseudo header). */
static __always_inline int sum_address4(struct __sk_buff *skb, __u32 offset, const struct address4 *old,
					 const struct address4 *new, __u64 flags)
{
	return bpf_l4_csum_replace(skb, offset, old->word[0], new->word[0], flags | BPF_F_PSEUDO_HDR | 4);
}

/* Writes an address at `offset` of the header at `ip`. */
static __always_inline int put_address4(struct __sk_buff *skb, __u32 ip, __u32 offset,
					 const struct address4 *old, const struct address4 *new)
{
	if (bpf_l3_csum_replace(skb, ip + 10, old->word[0], new->word[0], 4))
		return -1;
	return bpf_skb_store_bytes(skb, ip + offset, new, sizeof(*new), 0);
}

/* Gives the packet another source (`source` 1) or destination. Returns 0, or -1 when it can't be written. */
__noinline int rewrite4(struct __sk_buff *skb, struct packet4 *p, const struct address4 *address,
				__be16 port, int source)
{
	if (!p || !address)
		return -1;

	const __u32 offset = source ? 12 : 16;
	struct address4 new = *address;
	struct address4 old = source ? p->outer_source : p->outer_destination;
	__be16 old_port = source ? p->key.source_port : p->key.destination_port;
	__u32 header = p->header;

	if (p->inner) {
		/* An ICMP error: the other end of the packet inside, and the outer end if it is the same one. */
		const __u32 inside = p->inner + (source ? 16 : 12);
		struct address4 was = source ? p->key.source : p->key.destination;
		__u32 at = p->inner_header + (source ? 2 : 0);

		if (p->key.protocol == IPPROTO_ICMP)
			at = p->inner_header + 4;
		if (old_port != port) {
			if (bpf_l4_csum_replace(skb, header + 2, old_port, port, 2) ||
			    bpf_skb_store_bytes(skb, at, &port, sizeof(port), 0))
				return -1;
		}
		/* The header's own checksum takes up the change of the address: ICMP's does not see it. */
		if (put_address4(skb, p->inner, inside - p->inner, &was, &new))
			return -1;
		if (source && !same4(&old, &was))
			goto done;
		if (put_address4(skb, ETH_HLEN, offset, &old, &new))
			return -1;
		goto done;
	}
	if (p->fragment != 2) {
		if (p->key.protocol == IPPROTO_TCP) {
			if (sum_address4(skb, header + 16, &old, &new, 0))
				return -1;
			if (old_port != port && bpf_l4_csum_replace(skb, header + 16, old_port, port, 2))
				return -1;
		} else if (p->key.protocol == IPPROTO_UDP) {
			if (sum_address4(skb, header + 6, &old, &new, BPF_F_MARK_MANGLED_0))
				return -1;
			if (old_port != port &&
			    bpf_l4_csum_replace(skb, header + 6, old_port, port, BPF_F_MARK_MANGLED_0 | 2))
				return -1;
		}
		if (old_port != port) {
			__u32 at = header + (source ? 0 : 2);

			if (p->echo) {
				at = header + 4;
				if (bpf_l4_csum_replace(skb, header + 2, old_port, port, 2))
					return -1;
			}
			if (bpf_skb_store_bytes(skb, at, &port, sizeof(port), 0))
				return -1;
		}
	}
	if (put_address4(skb, ETH_HLEN, offset, &old, &new))
		return -1;
done:
	if (source) {
		p->outer_source = new;
		p->key.source = new;
		p->key.source_port = port;
	} else {
		p->outer_destination = new;
		p->key.destination = new;
		p->key.destination_port = port;
	}
	return 0;
}

/* --- services, IPv4: which frontend, which endpoint ---------------------------------------------------- */

static __always_inline int is_node4(const struct address4 *address)
{
	struct address4 key = *address;

	return (key.word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
	       bpf_map_lookup_elem(&node_addresses4, &key);
}

/* The frontend that answers there: one with this very address first, then the node's own ports. */
static __noinline struct frontend *find_frontend4(const struct address4 *address, __be16 port, __u8 protocol,
						   int node)
{
	struct frontend_key4 key = {.port = port, .protocol = protocol};
	struct frontend *frontend;

	if (!address)
		return 0;
	key.address = *address;
	frontend = bpf_map_lookup_elem(&frontends4, &key);
	if (frontend)
		return frontend;
	__u16 number = bpf_ntohs(port);

	if (number < config.nodeport_first || number > config.nodeport_last)
		return 0;
	if ((address->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000)) {
		return 0;
	} else {
		__u32 *served = bpf_map_lookup_elem(&node_addresses4, &key.address);

		if (!served || !*served)
			return 0;
	}
	memset(&key.address, 0, sizeof(key.address));
	return bpf_map_lookup_elem(&frontends4, &key);
}

/* Whether the route still leads to this endpoint. */
static __always_inline int is_member4(const struct route *route, const struct endpoint4 *endpoint)
{
	struct member_key4 key = {.first = route->first, .endpoint = *endpoint};

	return bpf_map_lookup_elem(&members4, &key) != 0;
}

/* Chooses an endpoint: the client's last one if it must stay there, otherwise any of them. */
static __noinline int choose4(const struct frontend *frontend, const struct route *route,
			       const struct address4 *client, struct endpoint4 *chosen)
{
	struct endpoint4 *endpoint;
	__u32 slot;

	if (!frontend || !route || !client || !chosen || !route->count)
		return -1;
	struct affinity_key4 key = {.affinity = frontend->affinity, .client = *client};
	struct affinity4 memory = {}, *last;
	__u64 time = bpf_ktime_get_ns();

	if (frontend->affinity) {
		last = bpf_map_lookup_elem(&affinity4, &key);
		if (last && time - last->seen < frontend->timeout * SECOND && is_member4(route, &last->endpoint)) {
			*chosen = last->endpoint;
			last->seen = time;
			return 0;
		}
		if (last)
			bpf_map_delete_elem(&affinity4, &key);
	}
	slot = route->first + bpf_get_prandom_u32() % route->count;
	endpoint = bpf_map_lookup_elem(&endpoints4, &slot);
	if (!endpoint)
		return -1;
	*chosen = *endpoint;
	if (frontend->affinity) {
		memory.endpoint = *endpoint;
		memory.seen = time;
		if (bpf_map_update_elem(&affinity4, &key, &memory, BPF_NOEXIST)) {
			/* Another connection of this client chose at the same time. */
			last = bpf_map_lookup_elem(&affinity4, &key);
			if (last && is_member4(route, &last->endpoint))
				*chosen = last->endpoint;
		}
	}
	return 0;
}

/* Whether a socket of the caller's network namespace may be this endpoint: one that listens on its port. */
static __always_inline int listens4(struct bpf_sock_addr *ctx, const struct endpoint4 *endpoint, __u32 protocol)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *found;

	memcpy(tuple.ipv4.daddr, &endpoint->address, sizeof(endpoint->address));
	tuple.ipv4.dport = endpoint->port;
	if (protocol == IPPROTO_TCP)
		found = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else if (protocol == IPPROTO_UDP)
		found = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		return 1;
	if (!found)
		return 0;
	bpf_sk_release(found);
	return 1;
}

/* What happens to packets for a service address that no frontend defines: an action, or -1 if it is none. */
static __always_inline int refusal4(const struct address4 *address)
{
	struct network4 key = {.length = 32, .address = *address};
	__u32 *action = bpf_map_lookup_elem(&refusals4, &key);

	return action ? (int)*action : -1;
}

/* The networks that hold the cluster's pods. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct network4);
	__type(value, __u32);
} cluster4 SEC(".maps");

/* Whether a packet is from a pod of the cluster. */
static __always_inline int from_cluster4(struct __sk_buff *skb, const struct address4 *source)
{
	struct network4 key = {.length = 32, .address = *source};

	return bpf_map_lookup_elem(&cluster4, &key) != 0;
}

/* --- connections, IPv4: what was decided for a connection's first packet holds for all --------------------

   A packet that arrives gets its new destination, one that departs its new source; between them the kernel routes.
   An entry's key is the packet as the hook sees it. For client C, service S, endpoint E and masquerading address M:
     C > S arrives:  destination E        E > M arrives:  destination C
     C > E departs:  source M             E > C departs:  source S
   No two connections may look the same between arrival and departure, or their answers could not be told apart: one
   client port may be used for two services with the same endpoint, or for a service and its endpoint directly. The
   second one gets another source port C' where it arrives, and its answers get C back where they depart. */

static __always_inline void reverse4(struct conn_key4 *to, const struct conn_key4 *from)
{
	memset(to, 0, sizeof(*to));
	to->source = from->destination;
	to->destination = from->source;
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
	to->protocol = from->protocol;
}

/* The entry with this key, as it is. The key is copied: Linux 6.1 wants keys on the stack. */
static __noinline struct conn4 *entry4(const struct conn_key4 *key)
{
	struct conn_key4 copy;

	if (!key)
		return 0;
	copy = *key;
	return bpf_map_lookup_elem(&connections4, &copy);
}

/* The packet ends a connection, or its sender's side: its entry, and the one for the other direction, learn it. */
static __noinline int close4(const struct packet4 *p, struct conn4 *c)
{
	struct conn_key4 back;
	struct conn4 *other;
	__u8 ended;

	if (!p || !c)
		return 0;
	ended = c->closing;
	if (p->last == 2)
		ended = ENDED;
	else if (!(c->flags & CONN_REPLY))
		ended |= ENDED_ASKING;
	else
		ended |= ended & ENDED_ASKING ? ENDED_ANSWERING : ENDED_ANSWERING | ANSWERING_FIRST;
	c->closing = ended;
	reverse4(&back, &p->key);
	other = bpf_map_lookup_elem(&connections4, &back);
	if (other)
		other->closing = ended;
	return 0;
}

/* The entry that the packet belongs to, or none. */
static __noinline struct conn4 *find4(const struct packet4 *p)
{
	struct conn4 *c;
	__u32 time;

	if (!p)
		return 0;
	c = entry4(&p->key);
	if (!c)
		return 0;
	if (p->first && c->flags & CONN_REPLY) /* answers do not ask */
		return 0;
	time = now();
	if (c->seen != time) {
		if (p->key.protocol != IPPROTO_TCP && p->key.protocol != IPPROTO_SCTP && time - c->seen > 180)
			return 0;
		c->seen = time;
	}
	if (p->last && !p->inner)
		close4(p, c);
	return c;
}

/* An error about no connection that is known here is a packet like any other. */
static __always_inline void forget_inner4(struct packet4 *p)
{
	p->inner = 0;
	memset(&p->key, 0, sizeof(p->key));
	p->key.source = p->outer_source;
	p->key.destination = p->outer_destination;
	p->key.protocol = p->protocol;
}

/* Forgets a connection, by its packets between arrival and departure; the key is on the caller's stack. */
static __noinline int undo4(const struct conn_key4 *forward)
{
	struct conn_key4 reply;

	if (!forward)
		return 0;
	reverse4(&reply, forward);
	struct conn4 *answer = bpf_map_lookup_elem(&connections4, &reply), *there;
	struct conn_key4 asked = *forward;

	if (answer && answer->depart_port)
		asked.source_port = answer->depart_port;
	if (answer && answer->flags & CONN_SET_SOURCE) {
		asked.destination = answer->address;
		asked.destination_port = answer->port;
	}
	there = bpf_map_lookup_elem(&connections4, &asked);
	if (there && there->flags & CONN_DEPARTS) { /* another connection's as well */
		there->arrive_port = 0;
		there->flags &= ~CONN_ARRIVES;
	} else if (there) {
		bpf_map_delete_elem(&connections4, &asked);
	}
	bpf_map_delete_elem(&connections4, &reply);
	bpf_map_delete_elem(&connections4, forward);
	return 0;
}

/* Whether nobody can miss the entry any more. */
static __always_inline int over4(const struct conn4 *c, __u8 protocol)
{
	__u32 idle = now() - c->seen;

	if (protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP)
		return idle > (c->closing ? CLOSED : FORGOTTEN);
	return idle > 180;
}

/* The search for a way from a client's port to an endpoint, for a connection whose answers are dealt with as `answer` says. */
struct claim4 {
	struct conn_key4 *forward;
	struct conn4 *answer;
	__u32 start;
	__be16 port; /* the client's own */
	__u8 found;
};

static long claim_turn4(__u32 i, struct claim4 *claim)
{
	const __u8 sets = CONN_SET_SOURCE | CONN_SET_DESTINATION;
	__u32 range = config.masquerade_last - config.masquerade_first + 1;
	struct conn_key4 *forward = claim->forward, key;
	struct conn4 *answer = claim->answer, *ahead, *there;
	__u64 how = BPF_NOEXIST;

	if (i)
		forward->source_port = bpf_htons(config.masquerade_first + (claim->start + i * 7919) % range);
	answer->depart_port = forward->source_port == claim->port ? 0 : claim->port;
	ahead = bpf_map_lookup_elem(&connections4, forward);
	reverse4(&key, forward);
	there = bpf_map_lookup_elem(&connections4, &key);
	if (there) {
		how = BPF_ANY;
		/* The same connection again? */
		if (there->flags & CONN_REPLY && (there->flags & sets) == (answer->flags & sets) &&
		    same4(&there->address, &answer->address) && there->port == answer->port &&
		    there->depart_port == answer->depart_port) {
			claim->found = !bpf_map_update_elem(&connections4, &key, answer, how);
			return 1;
		}
		if (!over4(there, forward->protocol))
			return 0;
	}
	if (ahead && !over4(ahead, forward->protocol)) {
		if (ahead->flags & CONN_DEPARTS)
			return 0;
		/* The address of a service that is its own endpoint looks the same on both sides. */
		if (ahead->flags & CONN_SET_DESTINATION &&
		    (!same4(&answer->address, &forward->destination) || answer->port != forward->destination_port))
			return 0;
	}
	if (bpf_map_update_elem(&connections4, &key, answer, how))
		return 0;
	claim->found = 1;
	return 1;
}

/* Takes such a way; `port` is the client's own. Changes the port of `forward` where that is taken. Returns 0, or -1 if
   none is free. Both are on the caller's stack, and there is little of it: hence static, and no copies. */
static __noinline int claim4(struct conn_key4 *forward, struct conn4 *answer, __be16 port)
{
	struct claim4 claim = {.forward = forward, .answer = answer, .start = bpf_get_prandom_u32(), .port = port};

	if (!forward || !answer)
		return -1;
	bpf_loop(TRIES, claim_turn4, &claim, 0);
	return claim.found ? 0 : -1;
}

/* Opens a connection from the packet's sender to the endpoint of a frontend. */
__noinline int open4(struct __sk_buff *skb, const struct packet4 *p, const struct endpoint4 *endpoint,
			     __u32 flags)
{
	struct conn4 c = {}, *there;
	struct conn_key4 forward;

	if (!p || !endpoint)
		return -1;
	c.generation = config.generation;
	c.seen = now();
	c.device = skb->ifindex;

	forward = p->key;
	forward.destination = endpoint->address;
	forward.destination_port = endpoint->port;
	c.address = p->key.destination;
	c.port = p->key.destination_port;
	c.flags = (flags & CONN_NODE) | CONN_REPLY | CONN_SET_SOURCE | CONN_ARRIVES | CONN_DEPARTS;
	if (claim4(&forward, &c, p->key.source_port))
		return -1;
	c.depart_port = 0;

	c.flags = (flags & (CONN_NODE | CONN_MASQUERADE)) | CONN_DEPARTS;
	if (same4(&forward.destination, &p->key.destination) && forward.destination_port == p->key.destination_port &&
	    forward.source_port == p->key.source_port) {
		c.flags |= CONN_ARRIVES;
		return bpf_map_update_elem(&connections4, &forward, &c, BPF_ANY);
	}
	/* A client that also talks to the endpoint directly, by another port since this one was taken. */
	there = bpf_map_lookup_elem(&connections4, &forward);
	if (there && there->arrive_port && !(there->flags & CONN_SET_DESTINATION)) {
		c.arrive_port = there->arrive_port;
		c.flags |= CONN_ARRIVES;
	}
	if (bpf_map_update_elem(&connections4, &forward, &c, BPF_ANY))
		return -1;

	c.address = endpoint->address;
	c.port = endpoint->port;
	c.arrive_port = forward.source_port == p->key.source_port ? 0 : forward.source_port;
	c.flags = (flags & CONN_NODE) | CONN_SET_DESTINATION | CONN_ARRIVES;
	forward = p->key;
	return bpf_map_update_elem(&connections4, &forward, &c, BPF_ANY);
}

/* Remembers a connection that goes to an endpoint directly. Its entry may then say another source port. */
__noinline int direct4(struct __sk_buff *skb, const struct packet4 *p, int node)
{
	struct frontend_key4 target = {};
	struct conn_key4 asked, forward;
	struct conn4 c = {}, *there;

	if (!p || p->inner || p->fragment == 2)
		return CONTINUE;
	asked = p->key;
	there = bpf_map_lookup_elem(&connections4, &asked);
	if (there && there->flags & CONN_REPLY)
		return CONTINUE;
	target.address = p->key.destination;
	target.port = p->key.destination_port;
	target.protocol = p->key.protocol;
	if (!there && !bpf_map_lookup_elem(&targets4, &target))
		return CONTINUE;
	if (!there && p->key.protocol == IPPROTO_TCP && !p->first) {
		/* From one server to another in the middle of a connection: nobody knows which of them asked. */
		target.address = p->key.source;
		target.port = p->key.source_port;
		if (bpf_map_lookup_elem(&targets4, &target))
			return CONTINUE;
	}
	c.generation = config.generation;
	c.seen = now();
	c.device = skb->ifindex;
	forward = asked;
	if (there && there->arrive_port && !(there->flags & CONN_SET_DESTINATION))
		forward.source_port = there->arrive_port;
	c.flags = (node ? CONN_NODE : 0) | CONN_REPLY | CONN_ARRIVES | CONN_DEPARTS;
	if (claim4(&forward, &c, p->key.source_port))
		return counted(DROP, COUNT_NO_ROOM);
	c.depart_port = 0;
	c.flags = (node ? CONN_NODE : 0) | CONN_DEPARTS;
	if (forward.source_port == p->key.source_port)
		c.flags |= CONN_ARRIVES;
	if (bpf_map_update_elem(&connections4, &forward, &c, BPF_ANY))
		return counted(DROP, COUNT_NO_ROOM);
	if (forward.source_port == p->key.source_port)
		return CONTINUE;
	there = bpf_map_lookup_elem(&connections4, &asked);
	if (there) {
		there->arrive_port = forward.source_port;
		there->generation = config.generation;
		there->closing = 0;
		there->flags |= CONN_ARRIVES;
		return CONTINUE;
	}
	c.arrive_port = forward.source_port;
	c.flags = (node ? CONN_NODE : 0) | CONN_ARRIVES;
	return bpf_map_update_elem(&connections4, &asked, &c, BPF_ANY) ? counted(DROP, COUNT_NO_ROOM) : CONTINUE;
}

/* The search for a port that a masqueraded connection can leave with. */
struct masquerade4 {
	struct conn_key4 key; /* how answers look */
	struct conn4 back;    /* what becomes of them */
	__u32 start;
	__u8 found; /* 1: it is taken, 2: another connection can spare it */
};

/* Whether a connection can spare its port when others find none: both sides ended it, and nothing is on its way. */
static __always_inline int spares4(const struct conn4 *c, __u8 protocol, __u32 turn)
{
	__u32 idle = now() - c->seen;

	if (turn < EASY)
		return 0;
	if (protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP)
		return (c->closing & ENDED) == ENDED && idle >= QUIET && (turn >= HARD || !(c->closing & ANSWERING_FIRST));
	return idle > SINGLE;
}

static long masquerade_turn4(__u32 i, struct masquerade4 *m)
{
	__u32 range = config.masquerade_last - config.masquerade_first + 1;
	struct conn4 *taken;

	m->key.destination_port = bpf_htons(config.masquerade_first + (m->start + i * 7919) % range);
	if (!bpf_map_update_elem(&connections4, &m->key, &m->back, BPF_NOEXIST)) {
		m->found = 1;
		return 1;
	}
	taken = bpf_map_lookup_elem(&connections4, &m->key);
	if (!taken || !(over4(taken, m->key.protocol) || spares4(taken, m->key.protocol, i)))
		return 0;
	m->found = 2;
	return 1;
}

/* Takes the port that another connection can spare, and forgets that one: a packet of it that is late must not pass for
   one of the new connection. */
static __noinline int take_over4(struct masquerade4 *m)
{
	struct conn_key4 forward = {};
	struct conn4 *c = bpf_map_lookup_elem(&connections4, &m->key);

	if (c) {
		forward.source = c->address;
		forward.source_port = c->port;
		forward.destination = m->key.source;
		forward.destination_port = m->key.source_port;
		forward.protocol = m->key.protocol;
		c = bpf_map_lookup_elem(&connections4, &forward);
		/* If it has not begun anew with another port. */
		if (c && c->flags & CONN_SET_SOURCE && !(c->flags & CONN_REPLY) && c->port == m->key.destination_port &&
		    same4(&c->address, &m->key.destination))
			undo4(&forward);
	}
	return bpf_map_update_elem(&connections4, &m->key, &m->back, BPF_ANY);
}

/* Chooses the source that a masqueraded connection leaves with: the address of the device with this index, and a free
   port. */
__noinline int masquerade4(const struct packet4 *p, struct conn4 *c, __u32 index)
{
	struct device *device = bpf_map_lookup_elem(&devices, &index);
	struct masquerade4 m = {.start = bpf_get_prandom_u32()};
	struct address4 address;

	if (!p || !c || !device)
		return -1;
	memcpy(&address, &device->address4, sizeof(address));
	if (!address.word[0])
		return -1;
	if (c->flags & CONN_NODE && same4(&p->key.source, &address)) {
		c->flags &= ~CONN_MASQUERADE;
		return 0;
	}
	reverse4(&m.key, &p->key);
	m.key.destination = address;
	m.back.address = p->key.source;
	m.back.port = p->key.source_port;
	m.back.flags = (c->flags & CONN_NODE) | CONN_REPLY | CONN_SET_DESTINATION | CONN_ARRIVES;
	m.back.generation = config.generation;
	m.back.seen = now();
	bpf_loop(TRIES, masquerade_turn4, &m, 0);
	if (!m.found || (m.found == 2 && take_over4(&m)))
		return -1;
	c->address = m.key.destination;
	c->port = m.key.destination_port;
	c->flags |= CONN_SET_SOURCE;
	return 0;
}

/* --- reject, IPv4: the packet becomes the ICMP answer "port unreachable" to itself --------------------------- */

__noinline int reject4(struct __sk_buff *skb, const struct packet4 *p, int sender)
{
	struct { struct ipv4 ip; __u8 icmp[8]; } answer = {};
	__u8 quoted[80];
	__u8 mac[2 * ETH_ALEN];
	__u64 keep, size; /* bytes of the packet that the answer quotes */
	__s64 sum;
	__u16 folded;

	counted(0, COUNT_REJECTED);
	if (!p || p->inner || p->fragment == 2 || p->length < 8 ||
	    p->header < ETH_HLEN + sizeof(struct ipv4))
		return DROP;
	if (p->protocol == IPPROTO_ICMP && !p->echo)
		return DROP;
	/* The IP header and as much of the transport header as tells the connection. */
	keep = p->header - ETH_HLEN + (p->length < 20 ? 8 : 20);
	if (keep > sizeof(quoted) || keep < 28)
		return DROP;
	if (bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)))
		return DROP;
	if (bpf_skb_change_tail(skb, ETH_HLEN + keep, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(answer), 1 /* BPF_ADJ_ROOM_MAC */, 0))
		return DROP;
	memset(quoted, 0, sizeof(quoted));
	size = keep;
	if (size < 28)
		return DROP;
	asm volatile("" : "+r"(size)); /* what is compared is what is used: Linux 6.1 does not see through copies */
	if (size > sizeof(quoted) || bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(answer), quoted, size))
		return DROP;
	answer.ip.version_ihl = 0x45;
	answer.ip.total_length = bpf_htons(sizeof(answer) + keep);
	answer.ip.ttl = 64;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.source = p->key.destination.word[0];
	answer.ip.destination = p->key.source.word[0];
	sum = bpf_csum_diff(0, 0, (__be32 *)&answer.ip, sizeof(answer.ip), 0);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	answer.ip.checksum = ~sum;
	answer.icmp[0] = 3;
	answer.icmp[1] = 3;
	sum = bpf_csum_diff(0, 0, (__be32 *)answer.icmp, sizeof(answer.icmp), 0);
	sum = bpf_csum_diff(0, 0, (__be32 *)quoted, sizeof(quoted), sum);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	folded = ~sum;
	memcpy(answer.icmp + 2, &folded, 2);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0) ||
	    bpf_skb_store_bytes(skb, 0, mac + ETH_ALEN, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, mac, ETH_ALEN, 0))
		return DROP;
	if (sender == SENDER_NODE)
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	skb->mark = MARK_OWN;
	return bpf_redirect(skb->ifindex, 0);
}

/* --- forward, IPv4: a packet's way through the node ------------------------------------------------------ */

/* Where a packet goes out, by the device with this index: its new source. */
__noinline int depart4(struct __sk_buff *skb, struct packet4 *p, __u32 index)
{
	struct address4 address;
	struct conn4 *c = find4(p);

	if (!c || !p || !(c->flags & CONN_DEPARTS))
		return CONTINUE;
	if ((c->flags & (CONN_MASQUERADE | CONN_SET_SOURCE)) == CONN_MASQUERADE && masquerade4(p, c, index))
		return counted(DROP, COUNT_NO_ROOM);

	__be16 port = c->port, client_port = c->depart_port;
	__u8 flags = c->flags;

	address = c->address;
	if (flags & CONN_SET_SOURCE && rewrite4(skb, p, &address, port, 1))
		return counted(DROP, COUNT_NO_WAY);
	address = p->key.destination;
	if (client_port && rewrite4(skb, p, &address, client_port, 0))
		return counted(DROP, COUNT_NO_WAY);
	/* The entry of those that come the other way, before they are translated. */
	if (p->last && flags & CONN_SET_SOURCE && !p->inner)
		close4(p, c);
	return CONTINUE;
}

/* The node's own packet got another destination after it was routed: route it again. */
__noinline int reroute4(struct __sk_buff *skb, struct packet4 *p)
{
	struct bpf_fib_lookup fib = {.family = AF_INET};
	struct bpf_redir_neigh next = {};
	__u8 none[2 * ETH_ALEN] = {};
	long result;

	if (!p)
		return DROP;
	fib.ifindex = skb->ifindex;
	memcpy(fib.src, &p->key.source, sizeof(p->key.source));
	memcpy(fib.dst, &p->key.destination, sizeof(p->key.destination));
	result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (result == 7 /* BPF_FIB_LKUP_RET_NO_NEIGH */) {
		/* The packet waits for its neighbour. Then the kernel asks the packet's own route for it, which must not be the
		   one to where it was sent first: without a next hop of ours, a new one is looked up. */
		skb->tc_index = INDEX_AGAIN;
		return bpf_redirect_neigh(fib.ifindex, 0, 0, 0);
	}
	if (result == 0) {
		next.nh_family = fib.family;
		memcpy(next.nh, fib.dst, sizeof(next.nh));
		skb->tc_index = INDEX_AGAIN;
		return bpf_redirect_neigh(fib.ifindex, &next, sizeof(next), 0);
	}
	if (result != 4 /* BPF_FIB_LKUP_RET_NOT_FWDED: the node's own address */ ||
	    bpf_skb_store_bytes(skb, 0, none, sizeof(none), 0))
		return counted(DROP, COUNT_NO_WAY);
	return bpf_redirect(config.loopback, BPF_F_INGRESS);
}

/* An answer to the node's own connection: tell it the service's address and its own port, on the device where it
   asked. */
__noinline int answer_node4(struct __sk_buff *skb, struct packet4 *p)
{
	struct conn4 *c = find4(p);
	struct device *device;
	struct address4 address;
	__be16 port, own_port;
	__u32 index;

	if (!c || !p || (c->flags & (CONN_REPLY | CONN_NODE)) != (CONN_REPLY | CONN_NODE))
		return CONTINUE;
	index = skb->ifindex;
	asm volatile("" : "+r"(index)); /* or clang makes one load of two pointers, which the verifier does not like */
	if (c->flags & CONN_SET_SOURCE)
		index = c->device;
	address = c->address;
	port = c->port;
	own_port = c->depart_port;
	if (c->flags & CONN_SET_SOURCE && rewrite4(skb, p, &address, port, 1))
		return DROP;
	address = p->key.destination;
	if (own_port && rewrite4(skb, p, &address, own_port, 0))
		return DROP;
	if (index == skb->ifindex || skb->ifindex == config.loopback)
		return PASS;
	if (index == config.loopback) {
		__u8 none[2 * ETH_ALEN] = {};

		if (bpf_skb_store_bytes(skb, 0, none, sizeof(none), 0))
			return DROP;
	} else {
		device = bpf_map_lookup_elem(&devices, &index);
		if (!device || bpf_skb_store_bytes(skb, 0, device->mac, ETH_ALEN, 0))
			return DROP;
	}
	return bpf_redirect(index, BPF_F_INGRESS);
}

/* A new packet: opens a connection if it is for a service. */
__noinline int serve4(struct __sk_buff *skb, struct packet4 *p, int sender)
{
	struct endpoint4 endpoint;
	struct frontend *frontend;
	struct route *route;
	__u32 who = 0, flags = 0;

	if (!p || p->inner || p->fragment == 2)
		return CONTINUE;
	frontend = find_frontend4(&p->key.destination, p->key.destination_port, p->key.protocol, sender == SENDER_NODE);
	if (!frontend)
		return CONTINUE;
	if (from_cluster4(skb, &p->key.source))
		who |= 1;
	if (sender == SENDER_NODE)
		who |= 2;
	route = &frontend->routes[who & 3];
	if (route->action == ACTION_REJECT) {
		count_service(frontend->service, SERVICE_REJECTED);
		return REJECT;
	}
	if (route->action != ACTION_BALANCE || choose4(frontend, route, &p->key.source, &endpoint)) {
		count_service(frontend->service, SERVICE_DROPPED);
		return counted(DROP, COUNT_NO_ENDPOINT);
	}
	if (route->masquerade || same4(&endpoint.address, &p->key.source))
		flags |= CONN_MASQUERADE;
	if (sender == SENDER_NODE)
		flags |= CONN_NODE;
	if (open4(skb, p, &endpoint, flags))
		return counted(DROP, COUNT_NO_ROOM);
	count_service(frontend->service, SERVICE_OPENED);
	return counted(SERVED, COUNT_OPENED);
}

/* Where a packet comes in: its new destination. */
__noinline int arrive4(struct __sk_buff *skb, struct packet4 *p, int sender)
{
	struct address4 address;
	struct conn4 *c;
	int verdict;

	if (!p)
		return DROP;
	if (p->invalid && sender != SENDER_NODE && !is_node4(&p->key.destination))
		return counted(DROP, COUNT_INVALID);
	c = find4(p);
	if (!c && p->inner)
		forget_inner4(p);
	/* Who asks anew is decided anew when the program changed or the last connection ended. */
	if (c && p->first && (c->generation != config.generation || c->closing))
		c = 0;
	if (c && !(c->flags & CONN_ARRIVES)) {
		/* What another of our hooks has translated already, or a direct connection beside one by a service. */
		if (p->inner || (sender != SENDER_NODE && c->device != skb->ifindex))
			return CONTINUE;
		c = 0;
	}
	if (!c) {
		verdict = serve4(skb, p, sender);
		if (verdict == REJECT)
			return reject4(skb, p, sender);
		if (verdict == CONTINUE) {
			verdict = refusal4(&p->key.destination);
			if (verdict == ACTION_REJECT)
				return reject4(skb, p, sender);
			if (verdict >= 0)
				return counted(DROP, COUNT_NO_SERVICE);
			verdict = CONTINUE;
		}
		if (verdict == CONTINUE)
			verdict = direct4(skb, p, sender == SENDER_NODE);
		else if (verdict == SERVED)
			verdict = CONTINUE;
		if (verdict != CONTINUE)
			return verdict;
		c = entry4(&p->key);
		if (!c)
			return CONTINUE;
	}
	__be16 port = c->port, client_port = c->arrive_port;
	__u8 flags = c->flags;

	p->answers_node = (flags & (CONN_REPLY | CONN_NODE)) == (CONN_REPLY | CONN_NODE);
	address = c->address;
	p->moved = flags & CONN_SET_DESTINATION && !same4(&address, &p->outer_destination);
	if (flags & CONN_SET_DESTINATION && rewrite4(skb, p, &address, port, 0))
		return counted(DROP, COUNT_NO_WAY);
	address = p->key.source;
	if (client_port && rewrite4(skb, p, &address, client_port, 1))
		return counted(DROP, COUNT_NO_WAY);
	return CONTINUE;
}

/* Ingress of a device: from a pod, or from outside. */
static __noinline int ingress4(struct __sk_buff *skb, int sender)
{
	struct packet4 p = {};
	int verdict;

	if (parse4(skb, &p))
		return counted(DROP, COUNT_MALFORMED);
	verdict = arrive4(skb, &p, sender);
	if (verdict == CONTINUE && p.answers_node)
		verdict = answer_node4(skb, &p);
	return verdict;
}

/* Egress of a device: to a pod, or to the outside. */
static __noinline int egress4(struct __sk_buff *skb, int to_pod)
{
	struct packet4 p = {};
	int verdict = CONTINUE;
	int again = skb->tc_index == INDEX_AGAIN && !skb->ingress_ifindex;

	if (again)
		skb->tc_index = 0;

	if (parse4(skb, &p))
		return counted(DROP, COUNT_MALFORMED);
	if (p.inner && !entry4(&p.key))
		forget_inner4(&p);
	if (!skb->ingress_ifindex && !again) {
		verdict = arrive4(skb, &p, SENDER_NODE);
		if (verdict != CONTINUE)
			return verdict;
		if (p.moved)
			return reroute4(skb, &p);
		if (p.answers_node)
			verdict = answer_node4(skb, &p);
		if (verdict != CONTINUE)
			return verdict;
	}
	return depart4(skb, &p, skb->ifindex);
}

/* --- hooks: the programs, and where they are ------------------------------------------------------------------ */

static __always_inline int verdict_of(int verdict)
{
	return verdict == CONTINUE ? PASS : verdict;
}

static __always_inline int incoming(struct __sk_buff *skb, int sender)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return verdict_of(ingress4(skb, sender));
	return PASS;
}

static __always_inline int outgoing(struct __sk_buff *skb, int to_pod)
{
	if (skb->mark == MARK_OWN) {
		skb->mark = 0;
		return PASS;
	}
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return verdict_of(egress4(skb, to_pod));
	return PASS;
}

/* Where a packet is, as the program that is attached there says in `cb[0]`: ingress of a pod's interface (what the pod
   sends), its egress (what the pod receives), ingress of an uplink (what the node receives), and egress of an uplink or of
   the loopback interface (what the node sends and forwards). */
enum { FROM_POD, TO_POD, FROM_OUTSIDE, TO_OUTSIDE };

/* All of these are one program: the verifier looks at what they share once, and not at each of them. */
SEC("tc")
int packets(struct __sk_buff *skb)
{
	__u32 place = skb->cb[0];

	if (place == FROM_POD || place == FROM_OUTSIDE)
		return incoming(skb, place == FROM_POD ? SENDER_POD : SENDER_OUTSIDE);
	return outgoing(skb, place == TO_POD);
}

/* --- sockets, IPv4: balanced once, when they connect; no cost per packet ------------------------------- */

/* Who asks: the address in the context, as IPv4. */
static __always_inline void read_address4(struct bpf_sock_addr *ctx, struct address4 *address)
{
	address->word[0] = ctx->user_ip4;
}

static __always_inline void write_address4(struct bpf_sock_addr *ctx, const struct endpoint4 *e)
{
	ctx->user_ip4 = e->address.word[0];
	ctx->user_port = e->port;
}

/* A socket is about to connect, or to send without being connected. Returns 0 to refuse, 1 to go on. */
static __noinline int socket_connect4(struct bpf_sock_addr *ctx, int sending)
{
	struct endpoint4 endpoint = {}, service = {};
	struct socket_key4 key = {};
	struct frontend *frontend;
	const struct route *route;
	int node = bpf_get_netns_cookie(ctx) == config.netns;
	__u32 protocol = ctx->protocol;

	/* A connected UDP socket could not be moved when its endpoint goes: its packets are translated instead. */
	if (protocol != (sending ? IPPROTO_UDP : IPPROTO_TCP))
		return 1;
	read_address4(ctx, &service.address);
	service.port = ctx->user_port;
	frontend = find_frontend4(&service.address, service.port, protocol, node);
	if (!frontend) {
		if (node && refusal4(&service.address) == ACTION_REJECT) {
			counted(0, COUNT_REJECTED);
			bpf_set_retval(-ECONNREFUSED);
			return 0;
		}
		return 1;
	}
	route = &frontend->sockets[node ? 1 : 0];
	if (route->action == ACTION_REJECT) {
		count_service(frontend->service, SERVICE_REJECTED);
		counted(0, COUNT_REJECTED);
		bpf_set_retval(-ECONNREFUSED);
		return 0;
	}
	/* Where the client's address matters, or nothing may answer, the packets are dealt with instead. */
	if (route->action != ACTION_BALANCE)
		return 1;
	/* So are those of a socket with a port of its own: it may have another connection to the endpoint that is chosen. */
	if (!sending && ctx->sk && ctx->sk->src_port)
		return 1;
	{
		struct address4 nobody = {};

		if (choose4(frontend, route, &nobody, &endpoint))
			return 1;
	}
	/* A pod that may reach itself must see the node's address: its packets see to that. */
	if (!node && listens4(ctx, &endpoint, protocol))
		return 1;
	key.cookie = bpf_get_socket_cookie(ctx);
	key.address = endpoint.address;
	key.port = endpoint.port;
	if (bpf_map_update_elem(&sockets4, &key, &service, BPF_ANY))
		return 1;
	write_address4(ctx, &endpoint);
	count_service(frontend->service, SERVICE_SOCKETS);
	counted(0, COUNT_SOCKETS);
	return 1;
}

/* A socket is told whom it talks to: the service, not the endpoint. */
static __noinline int socket_peer4(struct bpf_sock_addr *ctx)
{
	struct socket_key4 key = {};
	struct endpoint4 *service;

	key.cookie = bpf_get_socket_cookie(ctx);
	read_address4(ctx, &key.address);
	key.port = ctx->user_port;
	service = bpf_map_lookup_elem(&sockets4, &key);
	if (service && service->port)
		write_address4(ctx, service);
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return socket_connect4(ctx, 0);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return socket_connect4(ctx, 1);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return socket_peer4(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return socket_peer4(ctx);
}

/* --- sockets, IPv6: balanced once, when they connect; no cost per packet ------------------------------- */

/* Who asks: the address in the context, as IPv6 or as IPv4 in IPv6. */
static __always_inline void read_addressmapped6(struct bpf_sock_addr *ctx, struct address4 *address)
{
	address->word[0] = ctx->user_ip6[3];
}

static __always_inline void write_addressmapped6(struct bpf_sock_addr *ctx, const struct endpoint4 *e)
{
	ctx->user_ip6[3] = e->address.word[0];
	ctx->user_port = e->port;
}

/* A socket is about to connect, or to send without being connected. Returns 0 to refuse, 1 to go on. */
static __noinline int socket_connectmapped6(struct bpf_sock_addr *ctx, int sending)
{
	struct endpoint4 endpoint = {}, service = {};
	struct socket_key4 key = {};
	struct frontend *frontend;
	const struct route *route;
	int node = bpf_get_netns_cookie(ctx) == config.netns;
	__u32 protocol = ctx->protocol;

	/* A connected UDP socket could not be moved when its endpoint goes: its packets are translated instead. */
	if (protocol != (sending ? IPPROTO_UDP : IPPROTO_TCP))
		return 1;
	read_addressmapped6(ctx, &service.address);
	service.port = ctx->user_port;
	frontend = find_frontend4(&service.address, service.port, protocol, node);
	if (!frontend) {
		if (node && refusal4(&service.address) == ACTION_REJECT) {
			counted(0, COUNT_REJECTED);
			bpf_set_retval(-ECONNREFUSED);
			return 0;
		}
		return 1;
	}
	route = &frontend->sockets[node ? 1 : 0];
	if (route->action == ACTION_REJECT) {
		count_service(frontend->service, SERVICE_REJECTED);
		counted(0, COUNT_REJECTED);
		bpf_set_retval(-ECONNREFUSED);
		return 0;
	}
	/* Where the client's address matters, or nothing may answer, the packets are dealt with instead. */
	if (route->action != ACTION_BALANCE)
		return 1;
	/* So are those of a socket with a port of its own: it may have another connection to the endpoint that is chosen. */
	if (!sending && ctx->sk && ctx->sk->src_port)
		return 1;
	{
		struct address4 nobody = {};

		if (choose4(frontend, route, &nobody, &endpoint))
			return 1;
	}
	/* A pod that may reach itself must see the node's address: its packets see to that. */
	if (!node && listens4(ctx, &endpoint, protocol))
		return 1;
	key.cookie = bpf_get_socket_cookie(ctx);
	key.address = endpoint.address;
	key.port = endpoint.port;
	if (bpf_map_update_elem(&sockets4, &key, &service, BPF_ANY))
		return 1;
	write_addressmapped6(ctx, &endpoint);
	count_service(frontend->service, SERVICE_SOCKETS);
	counted(0, COUNT_SOCKETS);
	return 1;
}

/* A socket is told whom it talks to: the service, not the endpoint. */
static __noinline int socket_peermapped6(struct bpf_sock_addr *ctx)
{
	struct socket_key4 key = {};
	struct endpoint4 *service;

	key.cookie = bpf_get_socket_cookie(ctx);
	read_addressmapped6(ctx, &key.address);
	key.port = ctx->user_port;
	service = bpf_map_lookup_elem(&sockets4, &key);
	if (service && service->port)
		write_addressmapped6(ctx, service);
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	if (!ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff))
		return socket_connectmapped6(ctx, 0);
	return 1;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	if (!ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff))
		return socket_connectmapped6(ctx, 1);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	if (!ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff))
		return socket_peermapped6(ctx);
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	if (!ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff))
		return socket_peermapped6(ctx);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
