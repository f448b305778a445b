/* The programs that stay attached while the ones behind them change.

   Each hands the packet or socket on to the generation in force: `current` says which of the two places of every
   `slots_*` array that is. One write of `current` switches all hooks at once. Before the first switch, and at a hook
   that the generation in force does not use, packets go on untouched. The hooks for packets share one program, which
   the verifier so looks at once; `cb[0]` tells it where the packet is. */

typedef unsigned int __u32;

enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PROG_ARRAY = 3 };

/* The kernel's helpers by number, and the words with which libbpf finds maps and programs in the object. */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)12;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} current SEC(".maps");

/* The packet, as tc programs see it (struct __sk_buff of linux/bpf.h, its first part). */
struct __sk_buff {
	__u32 before_cb[12], cb[5];
};

/* Where a packet is; the generated program says the same. */
enum { FROM_POD, TO_POD, FROM_OUTSIDE, TO_OUTSIDE };

#define HAND_ON(hook)                                                                               \
	do {                                                                                            \
		__u32 zero = 0, *slot = bpf_map_lookup_elem(&current, &zero);                               \
                                                                                                    \
		if (slot)                                                                                   \
			bpf_tail_call(ctx, &slots_##hook, *slot & 1);                                           \
	} while (0)

#define SLOTS(hook)                                                                                 \
	struct {                                                                                        \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                      \
		__uint(max_entries, 2);                                                                     \
		__uint(key_size, sizeof(__u32));                                                            \
		__uint(value_size, sizeof(__u32));                                                          \
	} slots_##hook SEC(".maps")

#define PACKETS(hook, place)                                                                        \
	SLOTS(hook);                                                                                    \
	SEC("tc") int hook(struct __sk_buff *ctx)                                                       \
	{                                                                                               \
		ctx->cb[0] = place;                                                                         \
		HAND_ON(hook);                                                                              \
		return -1;                                                                                  \
	}

#define SOCKETS(hook)                                                                               \
	SLOTS(hook);                                                                                    \
	SEC("cgroup/" #hook) int hook(void *ctx)                                                        \
	{                                                                                               \
		HAND_ON(hook);                                                                              \
		return 1;                                                                                   \
	}

PACKETS(from_pod, FROM_POD)
PACKETS(to_pod, TO_POD)
PACKETS(from_outside, FROM_OUTSIDE)
PACKETS(to_outside, TO_OUTSIDE)
SOCKETS(connect4)
SOCKETS(connect6)
SOCKETS(sendmsg4)
SOCKETS(sendmsg6)
SOCKETS(recvmsg4)
SOCKETS(recvmsg6)
SOCKETS(getpeername4)
SOCKETS(getpeername6)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
