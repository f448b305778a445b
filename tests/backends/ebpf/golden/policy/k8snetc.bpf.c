/* Made by k8snetc from manifests: what this node does to packets, and no more. Do not edit.

   On: IPv4, policy4, IPv6, policy6, port_sets, drop_invalid, counters
   Off: frontends4, nodeports4, sources4, affinity4, datagrams4, refuses4, rejects4, detects4, frontends6, nodeports6, sources6, affinity6, datagrams6, refuses6, rejects6, detects6, sctp, localhost, detects_interface */

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
HELPER long (*bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;

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

struct ipv6 {
	__be32 version_class_flow;
	__be16 payload_length;
	__u8 next_header, hop_limit;
	__be32 source[4], destination[4];
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

struct policy_count {
	__u64 allowed, denied;
};

/* A profile -> its counters; made when it is used for the first time. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct policy_count);
} policy_counts SEC(".maps");

__noinline int count_policy(__u32 profile, int denied)
{
	struct policy_count none = {}, *count = bpf_map_lookup_elem(&policy_counts, &profile);

	if (!count) {
		bpf_map_update_elem(&policy_counts, &profile, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&policy_counts, &profile);
	}
	if (count)
		__sync_fetch_and_add(denied ? &count->denied : &count->allowed, 1);
	return counted(0, denied ? COUNT_DENIED : COUNT_ALLOWED);
}

/* --- denials: a packet that policy denied, as a record for whoever watches. Watching is a number of records that may
   still be written: the one who watches sets it again and again, and when nobody does, none is. So a flood of packets
   costs one look at that number, and a watcher that was killed leaves nothing behind. -------------------------- */

struct denial {
	__u64 time; /* nanoseconds since boot */
	__u32 profile;
	__u8 family, protocol, leaving, egress;
	__be16 source_port, destination_port; /* of an echo: its identifier, twice */
	__u32 generation;
	__be32 source[4], destination[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} denials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __s64);
} watching SEC(".maps");

/* Whether one more record may be written. */
static __always_inline int watched(void)
{
	__u32 zero = 0;
	__s64 *left = bpf_map_lookup_elem(&watching, &zero);

	if (!left || *left <= 0)
		return 0;
	__sync_fetch_and_add(left, -1); /* processors that look at the same time write one more each */
	return 1;
}

/* --- port sets: shared by both families -------------------------------------------------------------------- */

enum { PORTS_NONE = 0, PORTS_ALL = 1 }; /* sets of ports that need no table */

struct port_key {
	__u32 length; /* of the prefix, in bits, the 48 of set and protocol among them */
	__be32 set;
	__u8 protocol, zero; /* protocol 0: all that have no ports */
	__be16 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct port_key);
	__type(value, __u32);
} port_sets SEC(".maps");

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

/* The pods that policy protects -> their rules in each direction; 0: none. */
struct profile4 {
	__u32 ingress, egress;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address4);
	__type(value, struct profile4);
} pods4 SEC(".maps");

/* Address -> identity: addresses that all rules treat alike have the same one; 0: named by no rule. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct network4);
	__type(value, __u32);
} identities4 SEC(".maps");

/* Profile and identity of the peer -> set of ports. Identity ~0: every other. */
struct verdict_key4 {
	__u32 profile, identity;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct verdict_key4);
	__type(value, __u32);
} verdicts4 SEC(".maps");

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

/* --- services, IPv4: which frontend, which endpoint ---------------------------------------------------- */

static __always_inline int is_node4(const struct address4 *address)
{
	struct address4 key = *address;

	return (key.word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
	       bpf_map_lookup_elem(&node_addresses4, &key);
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
	bpf_map_delete_elem(&connections4, &reply);
	bpf_map_delete_elem(&connections4, forward);
	return 0;
}

/* --- policy, IPv4: may this connection be? Four look-ups, however many policies there are ------------------- */

__noinline int allows4(__u32 profile, const struct address4 *peer, __u8 protocol, __be16 port)
{
	struct network4 network = {.length = 32};
	struct verdict_key4 key = {.profile = profile};
	__u32 *found;

	if (!peer)
		return 0;
	network.address = *peer;
	found = bpf_map_lookup_elem(&identities4, &network);
	key.identity = found ? *found : ~0U;
	found = bpf_map_lookup_elem(&verdicts4, &key);
	if (!found) {
		key.identity = ~0U;
		found = bpf_map_lookup_elem(&verdicts4, &key);
	}
	if (!found || *found == PORTS_NONE)
		return 0;
	if (*found == PORTS_ALL)
		return 1;
	struct port_key ports = {.length = 64, .set = bpf_htonl(*found), .protocol = protocol, .port = port};

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP)
		ports.protocol = ports.port = 0;
	return bpf_map_lookup_elem(&port_sets, &ports) != 0;
}

/* Tells whoever watches about a denied packet. */
__noinline int record4(const struct packet4 *p, __u32 profile, int leaving, int egress)
{
	struct denial denial = {.profile = profile, .family = 4, .leaving = leaving, .egress = egress};

	if (!p || !watched())
		return 0;
	denial.time = bpf_ktime_get_ns();
	denial.generation = config.generation;
	denial.protocol = p->key.protocol;
	denial.source_port = p->key.source_port;
	denial.destination_port = p->key.destination_port;
	memcpy(denial.source, &p->key.source, sizeof(p->key.source));
	memcpy(denial.destination, &p->key.destination, sizeof(p->key.destination));
	return bpf_ringbuf_output(&denials, &denial, sizeof(denial), 0);
}

/* Which side opened a connection that nobody remembers: 1 the sender of this packet, -1 its receiver, 0 nobody knows.
   Connections that are older than the first policy are such. Not for packets that ask: their sender does. */
static __noinline int opened_by4(const struct packet4 *p)
{
	int from, to;

	if (!p)
		return 0;
	from = bpf_ntohs(p->key.source_port) >= CLIENT_PORTS;
	to = bpf_ntohs(p->key.destination_port) >= CLIENT_PORTS;
	return from - to;
}

/* Judges a packet that leaves a pod, with its translated destination, or reaches one, with its sender's source.
   What a connection's first packet may, all may, in both directions, until another program is in force: that one judges
   it again, and what it denies stays known, so that no packet of either side can pass for the first of another one. */
__noinline int admit4(const struct packet4 *p, int leaving)
{
	const struct address4 *peer;
	struct address4 pod;
	struct profile4 *profile;
	struct conn_key4 key, back;
	struct conn4 *c, fresh = {};
	int reply, egress, opener = 1;
	__u32 rules, other, denied = 0;

	if (!p)
		return DROP;
	if (p->link)
		return CONTINUE;
	key = p->key;
	c = find4(p);
	/* A pod reaches itself through its service: translated, and masqueraded on its way out. Nobody else's packets
	   have one address twice. */
	if (same4(&p->key.source, &p->key.destination))
		return c && c->flags & (CONN_MASQUERADE | CONN_SET_SOURCE) ? CONTINUE : DROP;
	pod = leaving ? key.source : key.destination;
	peer = leaving ? &p->key.destination : &p->key.source;
	profile = bpf_map_lookup_elem(&pods4, &pod);
	if (!profile)
		return CONTINUE;
	if (!c && p->key.protocol == IPPROTO_TCP && !p->first && p->fragment != 2)
		opener = opened_by4(p);
	reply = c ? c->flags & CONN_REPLY : opener < 0;
	egress = leaving != reply;
	rules = egress ? profile->egress : profile->ingress;
	other = egress ? profile->ingress : profile->egress;
	if (c && rules && (egress ? c->egress_judged : c->ingress_judged) == config.generation)
		return CONTINUE;
	if ((c && reply && c->flags & CONN_NODE) || (leaving && is_node4(peer)))
		return CONTINUE;
	/* Where nobody knows who opened it, each of the two must be allowed to. */
	if (rules && !allows4(rules, peer, p->key.protocol, reply ? p->key.source_port : p->key.destination_port))
		denied = rules;
	else if (!opener && other && !allows4(other, peer, p->key.protocol, p->key.source_port))
		denied = other;
	if (denied) {
		if (c && c->generation == config.generation && !(egress ? c->egress_judged : c->ingress_judged)) {
			reverse4(&back, &key);
			undo4(reply ? &back : &key);
		}
		count_policy(denied, 1);
		record4(p, denied, leaving, denied == rules ? egress : !egress);
		return DROP;
	}
	if (rules)
		count_policy(rules, 0);
	if (c && !rules)
		return CONTINUE;
	reverse4(&back, &key);
	if (c) {
		/* For the packets of both sides. */
		struct conn4 *other_way = bpf_map_lookup_elem(&connections4, &back);

		if (egress)
			c->egress_judged = config.generation;
		else
			c->ingress_judged = config.generation;
		if (other_way && egress)
			other_way->egress_judged = config.generation;
		else if (other_way)
			other_way->ingress_judged = config.generation;
		return CONTINUE;
	}
	if (p->fragment == 2 || p->inner)
		return CONTINUE;
	fresh.generation = config.generation;
	fresh.seen = now();
	if (egress)
		fresh.egress_judged = config.generation;
	else
		fresh.ingress_judged = config.generation;
	fresh.flags = CONN_ARRIVES | CONN_DEPARTS | (reply ? CONN_REPLY : 0);
	if (bpf_map_update_elem(&connections4, &key, &fresh, BPF_ANY))
		return counted(DROP, COUNT_NO_ROOM);
	fresh.flags ^= CONN_REPLY;
	return bpf_map_update_elem(&connections4, &back, &fresh, BPF_ANY) ? counted(DROP, COUNT_NO_ROOM) : CONTINUE;
}

/* --- forward, IPv4: a packet's way through the node ------------------------------------------------------ */

/* Where a packet comes in: its new destination. */
static __noinline int arrive4(struct __sk_buff *skb, struct packet4 *p, int sender)
{
	struct conn4 *c;

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
	if (verdict == CONTINUE && sender == SENDER_POD)
		verdict = admit4(&p, 1);
	return verdict;
}

/* Egress of a device: to a pod, or to the outside. */
static __noinline int egress4(struct __sk_buff *skb, int to_pod)
{
	struct packet4 p = {};
	int verdict = CONTINUE;

	if (parse4(skb, &p))
		return counted(DROP, COUNT_MALFORMED);
	if (p.inner && !entry4(&p.key))
		forget_inner4(&p);
	if (to_pod && skb->ingress_ifindex)
		verdict = admit4(&p, 0);
	if (verdict != CONTINUE)
		return verdict;
	return verdict;
}

/* --- tables, IPv6: filled from the program before the switch, apart from the shared ones ----------------- */

struct address6 {
	__be32 word[4];
};

static __always_inline int same6(const struct address6 *a, const struct address6 *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/* Shared between generations: connections, by the packets' addresses at the hook that asks. */
struct conn_key6 {
	struct address6 source, destination;
	__be16 source_port, destination_port;
	__u8 protocol, pad[3];
};

struct conn6 {
	struct address6 address; /* the new destination of what arrives, or the new source of what departs */
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
	__type(key, struct conn_key6);
	__type(value, struct conn6);
} connections6 SEC(".maps");

/* Shared: both ports of the datagrams whose later fragments are still to come. */
struct fragment_key6 {
	struct address6 source, destination;
	__be32 id;
	__u8 protocol, pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key6);
	__type(value, __u32);
} fragments6 SEC(".maps");

/* The node's own addresses; 1: NodePorts are served there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address6);
	__type(value, __u32);
} node_addresses6 SEC(".maps");

struct network6 {
	__u32 length; /* of the prefix, in bits */
	struct address6 address;
};

/* The pods that policy protects -> their rules in each direction; 0: none. */
struct profile6 {
	__u32 ingress, egress;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address6);
	__type(value, struct profile6);
} pods6 SEC(".maps");

/* Address -> identity: addresses that all rules treat alike have the same one; 0: named by no rule. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct network6);
	__type(value, __u32);
} identities6 SEC(".maps");

/* Profile and identity of the peer -> set of ports. Identity ~0: every other. */
struct verdict_key6 {
	__u32 profile, identity;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct verdict_key6);
	__type(value, __u32);
} verdicts6 SEC(".maps");

/* --- parse, IPv6: which connection a packet belongs to ------------------------------------------------- */

struct packet6 {
	struct conn_key6 key; /* of an ICMP error: of a packet that goes the same way as the error */
	struct address6 outer_source, outer_destination;
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
static __always_inline int ports6(struct __sk_buff *skb, struct packet6 *p, __u32 offset, __u8 protocol)
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

/* A walk along the extension headers. */
struct walk {
	struct __sk_buff *skb;
	__u32 offset;
	__be32 id;
	__u8 next;     /* kind of the header at `offset` */
	__u8 fragment; /* as in `struct packet6` */
	__u8 arrived;  /* at the transport header */
};

static __always_inline int is_extension(__u8 kind)
{
	return kind == IPPROTO_HOPOPTS || kind == IPPROTO_ROUTING || kind == IPPROTO_DSTOPTS || kind == IPPROTO_AH ||
	       kind == IPPROTO_FRAGMENT;
}

/* One header more. Returns 1 at the end: at the transport header, or where a header can't be read. */
static long step(__u32 i, struct walk *walk)
{
	__u8 h[8];

	if (bpf_skb_load_bytes(walk->skb, walk->offset, h, sizeof(h)))
		return 1;
	if (walk->next == IPPROTO_ROUTING && h[3] != 0)
		return 1;
	if (walk->next == IPPROTO_FRAGMENT) {
		memcpy(&walk->id, h + 4, 4);
		walk->offset += 8;
		walk->fragment = h[3] & 1;
		if (h[2] || h[3] & 0xf8) { /* what follows is the middle of something */
			walk->fragment = 2;
			walk->next = h[0];
			walk->arrived = 1;
			return 1;
		}
	} else {
		walk->offset += walk->next == IPPROTO_AH ? (h[1] + 2) * 4 : (h[1] + 1) * 8;
	}
	walk->next = h[0];
	walk->arrived = !is_extension(walk->next);
	return walk->arrived;
}

/* Walks the extension headers. Returns the offset of the transport header and its protocol, or -1. A routing
   header that is not used up, and anything that can't be read, makes the packet one of no known protocol. */
static __noinline int extensions(struct __sk_buff *skb, __u32 offset, __u8 *protocol, __be32 *id, __u8 *fragment)
{
	struct walk walk = {.skb = skb, .offset = offset, .next = *protocol};

	if (!is_extension(walk.next))
		return offset;
	bpf_loop(6, step, &walk, 0);
	if (!walk.arrived)
		return -1;
	*protocol = walk.next;
	*id = walk.id;
	*fragment = walk.fragment;
	return walk.offset;
}

/* Whether an ICMPv6 message of this type stays on the link: sent to an address of the link alone, or neighbour
   discovery (RFC 4861) that no router has touched, from one port of a bridge to another (which is nobody's frame but
   that port's). Whatever can be routed is a packet like any other: a pod could say all it wants in it. */
static __always_inline int neighbours(struct __sk_buff *skb, const struct ipv6 *ip, __u8 type)
{
	const __u8 *to = (const __u8 *)ip->destination;

	if (!((type >= 130 && type <= 136) || type == 143))
		return 0;
	if ((to[0] == 0xfe && (to[1] & 0xc0) == 0x80) || (to[0] == 0xff && (to[1] & 0x0f) <= 2))
		return 1;
	return type >= 133 && type <= 136 && ip->hop_limit == 255 && skb->pkt_type == 3; /* PACKET_OTHERHOST */
}

/* Reads a packet. Returns 0, or -1 when it is malformed. */
__noinline int parse6(struct __sk_buff *skb, struct packet6 *p)
{
	struct ipv6 ip;
	__be32 id = 0;
	__u8 protocol;
	int offset;

	if (!p)
		return -1;
	memset(p, 0, sizeof(*p));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6)
		return -1;
	protocol = ip.next_header;
	memcpy(&p->key.source, ip.source, sizeof(p->key.source));
	memcpy(&p->key.destination, ip.destination, sizeof(p->key.destination));
	offset = extensions(skb, ETH_HLEN + sizeof(ip), &protocol, &id, &p->fragment);
	if (offset < 0)
		return -1;
	p->outer_source = p->key.source;
	p->outer_destination = p->key.destination;
	p->protocol = protocol;
	p->key.protocol = protocol;
	p->header = offset;
	p->length = bpf_ntohs(ip.payload_length) - (offset - ETH_HLEN - sizeof(ip));

	if (p->fragment) {
		struct fragment_key6 f = {.source = p->key.source, .destination = p->key.destination, .id = id,
					    .protocol = protocol};

		if (p->fragment == 2) {
			__u32 *known = bpf_map_lookup_elem(&fragments6, &f);

			if (known)
				memcpy(&p->key.source_port, known, sizeof(*known));
			return 0;
		}
		if (ports6(skb, p, offset, protocol))
			return -1;
		__u32 both;

		memcpy(&both, &p->key.source_port, sizeof(both));
		bpf_map_update_elem(&fragments6, &f, &both, BPF_ANY);
	} else if (ports6(skb, p, offset, protocol)) {
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
	} else if (protocol == IPPROTO_ICMPV6) {
		struct address6 sender;
		struct ipv6 in;
		__u8 h[8];
		int at = offset + 8;

		if (bpf_skb_load_bytes(skb, offset, h, sizeof(h)))
			return -1;
		if (h[0] == 128 || h[0] == 129) {
			memcpy(&p->key.source_port, h + 4, 2);
			p->key.destination_port = p->key.source_port;
			p->echo = 1;
			return 0;
		}
		p->link = neighbours(skb, &ip, h[0]);
		if (h[0] < 1 || h[0] > 4)
			return 0;
		/* An error: it belongs to the connection of the packet inside, which went the other way. One that goes to
		   somebody else than that packet's sender belongs to none. */
		if (bpf_skb_load_bytes(skb, at, &in, sizeof(in)))
			return -1;
		memcpy(&sender, in.source, sizeof(sender));
		if (!same6(&sender, &p->outer_destination))
			return 0;
		__u8 fragment = 0;
		int transport;

		if ((bpf_ntohl(in.version_class_flow) >> 28) != 6)
			return -1;
		protocol = in.next_header;
		transport = extensions(skb, at + sizeof(in), &protocol, &id, &fragment);
		if (transport < 0 || fragment == 2)
			return 0;
		p->inner_header = transport;
		p->inner = at;
		if (ports6(skb, p, p->inner_header, protocol))
			return -1;
		if (protocol == IPPROTO_ICMPV6) {
			if (bpf_skb_load_bytes(skb, p->inner_header, h, sizeof(h)))
				return -1;
			memcpy(&p->key.source_port, h + 4, 2);
			p->key.destination_port = p->key.source_port;
		}
		__be16 port = p->key.source_port;

		p->key.source_port = p->key.destination_port;
		p->key.destination_port = port;
		memcpy(&p->key.source, in.destination, sizeof(p->key.source));
		memcpy(&p->key.destination, in.source, sizeof(p->key.destination));
	}
	return 0;
}

/* --- services, IPv6: which frontend, which endpoint ---------------------------------------------------- */

static __always_inline int is_node6(const struct address6 *address)
{
	struct address6 key = *address;

	return (!key.word[0] && !key.word[1] && !key.word[2] && key.word[3] == bpf_htonl(1)) ||
	       bpf_map_lookup_elem(&node_addresses6, &key);
}

/* --- connections, IPv6: what was decided for a connection's first packet holds for all --------------------

   A packet that arrives gets its new destination, one that departs its new source; between them the kernel routes.
   An entry's key is the packet as the hook sees it. For client C, service S, endpoint E and masquerading address M:
     C > S arrives:  destination E        E > M arrives:  destination C
     C > E departs:  source M             E > C departs:  source S
   No two connections may look the same between arrival and departure, or their answers could not be told apart: one
   client port may be used for two services with the same endpoint, or for a service and its endpoint directly. The
   second one gets another source port C' where it arrives, and its answers get C back where they depart. */

static __always_inline void reverse6(struct conn_key6 *to, const struct conn_key6 *from)
{
	memset(to, 0, sizeof(*to));
	to->source = from->destination;
	to->destination = from->source;
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
	to->protocol = from->protocol;
}

/* The entry with this key, as it is. The key is copied: Linux 6.1 wants keys on the stack. */
static __noinline struct conn6 *entry6(const struct conn_key6 *key)
{
	struct conn_key6 copy;

	if (!key)
		return 0;
	copy = *key;
	return bpf_map_lookup_elem(&connections6, &copy);
}

/* The packet ends a connection, or its sender's side: its entry, and the one for the other direction, learn it. */
static __noinline int close6(const struct packet6 *p, struct conn6 *c)
{
	struct conn_key6 back;
	struct conn6 *other;
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
	reverse6(&back, &p->key);
	other = bpf_map_lookup_elem(&connections6, &back);
	if (other)
		other->closing = ended;
	return 0;
}

/* The entry that the packet belongs to, or none. */
static __noinline struct conn6 *find6(const struct packet6 *p)
{
	struct conn6 *c;
	__u32 time;

	if (!p)
		return 0;
	c = entry6(&p->key);
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
		close6(p, c);
	return c;
}

/* An error about no connection that is known here is a packet like any other. */
static __always_inline void forget_inner6(struct packet6 *p)
{
	p->inner = 0;
	memset(&p->key, 0, sizeof(p->key));
	p->key.source = p->outer_source;
	p->key.destination = p->outer_destination;
	p->key.protocol = p->protocol;
}

/* Forgets a connection, by its packets between arrival and departure; the key is on the caller's stack. */
static __noinline int undo6(const struct conn_key6 *forward)
{
	struct conn_key6 reply;

	if (!forward)
		return 0;
	reverse6(&reply, forward);
	bpf_map_delete_elem(&connections6, &reply);
	bpf_map_delete_elem(&connections6, forward);
	return 0;
}

/* --- policy, IPv6: may this connection be? Four look-ups, however many policies there are ------------------- */

__noinline int allows6(__u32 profile, const struct address6 *peer, __u8 protocol, __be16 port)
{
	struct network6 network = {.length = 128};
	struct verdict_key6 key = {.profile = profile};
	__u32 *found;

	if (!peer)
		return 0;
	network.address = *peer;
	found = bpf_map_lookup_elem(&identities6, &network);
	key.identity = found ? *found : ~0U;
	found = bpf_map_lookup_elem(&verdicts6, &key);
	if (!found) {
		key.identity = ~0U;
		found = bpf_map_lookup_elem(&verdicts6, &key);
	}
	if (!found || *found == PORTS_NONE)
		return 0;
	if (*found == PORTS_ALL)
		return 1;
	struct port_key ports = {.length = 64, .set = bpf_htonl(*found), .protocol = protocol, .port = port};

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP)
		ports.protocol = ports.port = 0;
	return bpf_map_lookup_elem(&port_sets, &ports) != 0;
}

/* Tells whoever watches about a denied packet. */
__noinline int record6(const struct packet6 *p, __u32 profile, int leaving, int egress)
{
	struct denial denial = {.profile = profile, .family = 6, .leaving = leaving, .egress = egress};

	if (!p || !watched())
		return 0;
	denial.time = bpf_ktime_get_ns();
	denial.generation = config.generation;
	denial.protocol = p->key.protocol;
	denial.source_port = p->key.source_port;
	denial.destination_port = p->key.destination_port;
	memcpy(denial.source, &p->key.source, sizeof(p->key.source));
	memcpy(denial.destination, &p->key.destination, sizeof(p->key.destination));
	return bpf_ringbuf_output(&denials, &denial, sizeof(denial), 0);
}

/* Which side opened a connection that nobody remembers: 1 the sender of this packet, -1 its receiver, 0 nobody knows.
   Connections that are older than the first policy are such. Not for packets that ask: their sender does. */
static __noinline int opened_by6(const struct packet6 *p)
{
	int from, to;

	if (!p)
		return 0;
	from = bpf_ntohs(p->key.source_port) >= CLIENT_PORTS;
	to = bpf_ntohs(p->key.destination_port) >= CLIENT_PORTS;
	return from - to;
}

/* Judges a packet that leaves a pod, with its translated destination, or reaches one, with its sender's source.
   What a connection's first packet may, all may, in both directions, until another program is in force: that one judges
   it again, and what it denies stays known, so that no packet of either side can pass for the first of another one. */
__noinline int admit6(const struct packet6 *p, int leaving)
{
	const struct address6 *peer;
	struct address6 pod;
	struct profile6 *profile;
	struct conn_key6 key, back;
	struct conn6 *c, fresh = {};
	int reply, egress, opener = 1;
	__u32 rules, other, denied = 0;

	if (!p)
		return DROP;
	if (p->link)
		return CONTINUE;
	key = p->key;
	c = find6(p);
	/* A pod reaches itself through its service: translated, and masqueraded on its way out. Nobody else's packets
	   have one address twice. */
	if (same6(&p->key.source, &p->key.destination))
		return c && c->flags & (CONN_MASQUERADE | CONN_SET_SOURCE) ? CONTINUE : DROP;
	pod = leaving ? key.source : key.destination;
	peer = leaving ? &p->key.destination : &p->key.source;
	profile = bpf_map_lookup_elem(&pods6, &pod);
	if (!profile)
		return CONTINUE;
	if (!c && p->key.protocol == IPPROTO_TCP && !p->first && p->fragment != 2)
		opener = opened_by6(p);
	reply = c ? c->flags & CONN_REPLY : opener < 0;
	egress = leaving != reply;
	rules = egress ? profile->egress : profile->ingress;
	other = egress ? profile->ingress : profile->egress;
	if (c && rules && (egress ? c->egress_judged : c->ingress_judged) == config.generation)
		return CONTINUE;
	if ((c && reply && c->flags & CONN_NODE) || (leaving && is_node6(peer)))
		return CONTINUE;
	/* Where nobody knows who opened it, each of the two must be allowed to. */
	if (rules && !allows6(rules, peer, p->key.protocol, reply ? p->key.source_port : p->key.destination_port))
		denied = rules;
	else if (!opener && other && !allows6(other, peer, p->key.protocol, p->key.source_port))
		denied = other;
	if (denied) {
		if (c && c->generation == config.generation && !(egress ? c->egress_judged : c->ingress_judged)) {
			reverse6(&back, &key);
			undo6(reply ? &back : &key);
		}
		count_policy(denied, 1);
		record6(p, denied, leaving, denied == rules ? egress : !egress);
		return DROP;
	}
	if (rules)
		count_policy(rules, 0);
	if (c && !rules)
		return CONTINUE;
	reverse6(&back, &key);
	if (c) {
		/* For the packets of both sides. */
		struct conn6 *other_way = bpf_map_lookup_elem(&connections6, &back);

		if (egress)
			c->egress_judged = config.generation;
		else
			c->ingress_judged = config.generation;
		if (other_way && egress)
			other_way->egress_judged = config.generation;
		else if (other_way)
			other_way->ingress_judged = config.generation;
		return CONTINUE;
	}
	if (p->fragment == 2 || p->inner)
		return CONTINUE;
	fresh.generation = config.generation;
	fresh.seen = now();
	if (egress)
		fresh.egress_judged = config.generation;
	else
		fresh.ingress_judged = config.generation;
	fresh.flags = CONN_ARRIVES | CONN_DEPARTS | (reply ? CONN_REPLY : 0);
	if (bpf_map_update_elem(&connections6, &key, &fresh, BPF_ANY))
		return counted(DROP, COUNT_NO_ROOM);
	fresh.flags ^= CONN_REPLY;
	return bpf_map_update_elem(&connections6, &back, &fresh, BPF_ANY) ? counted(DROP, COUNT_NO_ROOM) : CONTINUE;
}

/* --- forward, IPv6: a packet's way through the node ------------------------------------------------------ */

/* Where a packet comes in: its new destination. */
static __noinline int arrive6(struct __sk_buff *skb, struct packet6 *p, int sender)
{
	struct conn6 *c;

	if (!p)
		return DROP;
	if (p->invalid && sender != SENDER_NODE && !is_node6(&p->key.destination))
		return counted(DROP, COUNT_INVALID);
	c = find6(p);
	if (!c && p->inner)
		forget_inner6(p);
	/* Who asks anew is decided anew when the program changed or the last connection ended. */
	if (c && p->first && (c->generation != config.generation || c->closing))
		c = 0;
	return CONTINUE;
}

/* Ingress of a device: from a pod, or from outside. */
static __noinline int ingress6(struct __sk_buff *skb, int sender)
{
	struct packet6 p = {};
	int verdict;

	if (parse6(skb, &p))
		return counted(DROP, COUNT_MALFORMED);
	verdict = arrive6(skb, &p, sender);
	if (verdict == CONTINUE && sender == SENDER_POD)
		verdict = admit6(&p, 1);
	return verdict;
}

/* Egress of a device: to a pod, or to the outside. */
static __noinline int egress6(struct __sk_buff *skb, int to_pod)
{
	struct packet6 p = {};
	int verdict = CONTINUE;

	if (parse6(skb, &p))
		return counted(DROP, COUNT_MALFORMED);
	if (p.inner && !entry6(&p.key))
		forget_inner6(&p);
	if (to_pod && skb->ingress_ifindex)
		verdict = admit6(&p, 0);
	if (verdict != CONTINUE)
		return verdict;
	return verdict;
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
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return verdict_of(ingress6(skb, sender));
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
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return verdict_of(egress6(skb, to_pod));
	return PASS;
}

/* What policy can't judge does not pass between pods: only IP and ARP do. */
static __always_inline int judged_protocol(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6) ||
	       skb->protocol == bpf_htons(ETH_P_ARP);
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

	if ((place == FROM_POD || place == TO_POD) && !judged_protocol(skb))
		return counted(DROP, COUNT_OTHER);
	if (place == FROM_POD || place == FROM_OUTSIDE)
		return incoming(skb, place == FROM_POD ? SENDER_POD : SENDER_OUTSIDE);
	return outgoing(skb, place == TO_POD);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
