/* The programs that stay attached while the ones behind them change.

   Each hands the packet or socket on to the generation in force: `current` says which of the two places of every
   `slots_*` array that is. One write of `current` switches all hooks at once. Before the first switch, and at a hook
   that the generation in force does not use, packets go on untouched. */

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

#define ENTRY(hook, section, next)                                                                  \
	struct {                                                                                        \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                      \
		__uint(max_entries, 2);                                                                     \
		__uint(key_size, sizeof(__u32));                                                            \
		__uint(value_size, sizeof(__u32));                                                          \
	} slots_##hook SEC(".maps");                                                                    \
	SEC(section) int hook(void *ctx)                                                                \
	{                                                                                               \
		__u32 zero = 0, *slot = bpf_map_lookup_elem(&current, &zero);                               \
                                                                                                    \
		if (slot)                                                                                   \
			bpf_tail_call(ctx, &slots_##hook, *slot & 1);                                           \
		return next;                                                                                \
	}

ENTRY(from_pod, "tc", -1)
ENTRY(to_pod, "tc", -1)
ENTRY(from_outside, "tc", -1)
ENTRY(to_outside, "tc", -1)
ENTRY(connect4, "cgroup/connect4", 1)
ENTRY(connect6, "cgroup/connect6", 1)
ENTRY(sendmsg4, "cgroup/sendmsg4", 1)
ENTRY(sendmsg6, "cgroup/sendmsg6", 1)
ENTRY(recvmsg4, "cgroup/recvmsg4", 1)
ENTRY(recvmsg6, "cgroup/recvmsg6", 1)
ENTRY(getpeername4, "cgroup/getpeername4", 1)
ENTRY(getpeername6, "cgroup/getpeername6", 1)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
