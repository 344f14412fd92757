// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Counts packets of the engine `live` that were redirected to an interface and not taken by it: its ring was full, or it
// takes no redirected packets at all. The sender's own program cannot see that; the kernel says it by two tracepoints.
//
// A packet is the sender's if the thread that runs has the sender's name and the packet comes from a loopback interface,
// which is where BPF_PROG_TEST_RUN says that its frames come from. The name alone is not enough: what a gateway redirects
// in a soft interrupt on the same core runs under it too.
//
// Header-free, for the reasons given in dataplane/xdp/weir.bpf.c; build.sh builds the object beside it. Where the kernel
// keeps the index of an interface is found when it is loaded, by its BTF.

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// linux/bpf.h
enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6 };

// Helpers by their numbers in linux/bpf.h.
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_get_current_comm)(void *buf, u32 size) = (void *)16;
static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

// linux/netdevice.h
struct net_device {
    int ifindex;
} __attribute__((preserve_access_index));

struct {
    int(*type)[BPF_MAP_TYPE_PERCPU_ARRAY];
    int(*max_entries)[1];
    u32 *key;
    u64 *value;
} refused SEC(".maps");

// Set by the loader before the program is loaded: the name of the sender's thread, 16 bytes with zeros at the end.
const volatile u64 name_0 = 0;
const volatile u64 name_1 = 0;

// In every network namespace.
#define LOOPBACK_IFINDEX 1

INLINE int count(const struct net_device *from, u64 packets) {
    int index = 0;
    u64 name[2] = {};
    if (!packets || bpf_probe_read_kernel(&index, sizeof(index), &from->ifindex) || index != LOOPBACK_IFINDEX)
        return 0;
    if (bpf_get_current_comm(name, sizeof(name)) || name[0] != name_0 || name[1] != name_1)
        return 0;
    u32 key = 0;
    u64 *counter = bpf_map_lookup_elem(&refused, &key);
    if (counter)
        *counter += packets;
    return 0;
}

// trace/events/xdp.h: const struct net_device *from_dev, const struct net_device *to_dev, int sent, int drops, int err
SEC("raw_tp/xdp_devmap_xmit")
int not_taken(const u64 *arguments) {
    return count((const struct net_device *)arguments[0], (u32)arguments[3]);
}

// const struct net_device *dev, const struct bpf_prog *xdp, const void *tgt, int err, ...
SEC("raw_tp/xdp_redirect_err")
int not_redirected(const u64 *arguments) {
    return count((const struct net_device *)arguments[0], 1);
}

char _license[] SEC("license") = "Dual MIT/GPL";
