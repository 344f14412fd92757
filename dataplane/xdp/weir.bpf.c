// The XDP program of weir: steers every packet of a wire port to the AF_XDP socket of its queue.
//
//   no socket on the queue                ──► drop, counted: nobody judges this queue, so nothing may slip past
//   heartbeat of the queue's worker fresh ──► socket of the queue
//   heartbeat stale or never written      ──► kernel (fail = "open") or drop (fail = "closed"), counted
//
// Header-free on purpose: building weir needs no C toolchain, because the object lies beside this file; whoever changes
// this file rebuilds it with the command in build.sh and checks both in. CI compiles it again and compares.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// linux/bpf.h
enum xdp_action { XDP_DROP = 1, XDP_PASS = 2 };
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_XSKMAP = 17 };
enum { BPF_F_MMAPABLE = 1 << 10 };

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

// Helpers by their numbers in linux/bpf.h.
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static u64 (*const bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;

// A map definition that loaders read from BTF: each number is the length of an array type.
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

#define QUEUES 64

struct {
    UINT(type, BPF_MAP_TYPE_XSKMAP);
    UINT(max_entries, QUEUES);
    TYPE(key, u32);
    TYPE(value, u32);
} sockets SEC(".maps");

// CLOCK_MONOTONIC nanoseconds of the worker's last turn, by queue. Workers write it through a memory map.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(map_flags, BPF_F_MMAPABLE);
    UINT(max_entries, QUEUES);
    TYPE(key, u32);
    TYPE(value, u64);
} heartbeats SEC(".maps");

enum counter { TO_KERNEL, DROPPED_STALE, DROPPED_NO_SOCKET, COUNTERS };

struct amount {
    u64 packets;
    u64 bytes;
};

// By queue and counter: queue * COUNTERS + counter. Queues beyond the maps count with the last one.
struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, QUEUES * COUNTERS);
    TYPE(key, u32);
    TYPE(value, struct amount);
} counters SEC(".maps");

// Set by the loader before the program is loaded.
const volatile u64 stale_after_ns = 250000000;
const volatile u8 fail_open = 1;

INLINE void count(struct xdp_md *ctx, enum counter which) {
    u32 queue = ctx->rx_queue_index < QUEUES ? ctx->rx_queue_index : QUEUES - 1;
    u32 key = queue * COUNTERS + which;
    struct amount *amount = bpf_map_lookup_elem(&counters, &key);
    if (amount) {
        amount->packets += 1;
        // By the helper (Linux 5.18): the difference of two packet pointers is allowed only with CAP_PERFMON.
        amount->bytes += bpf_xdp_get_buff_len(ctx);
    }
}

SEC("xdp")
int weir(struct xdp_md *ctx) {
    u32 queue = ctx->rx_queue_index;
    // A queue that came after start (ethtool -L) has no worker: its packets must not slip past the contracts, whatever
    // `fail` says about workers that stand still.
    if (!bpf_map_lookup_elem(&sockets, &queue)) {
        count(ctx, DROPPED_NO_SOCKET);
        return XDP_DROP;
    }
    u64 *heartbeat = bpf_map_lookup_elem(&heartbeats, &queue);
    u64 last = heartbeat ? *(volatile u64 *)heartbeat : 0;
    u64 now = bpf_ktime_get_ns();
    // The worker may have written after the clock was read here: a beat from the future is a fresh one.
    if (last == 0 || (now > last && now - last > stale_after_ns)) {
        count(ctx, fail_open ? TO_KERNEL : DROPPED_STALE);
        return fail_open ? XDP_PASS : XDP_DROP;
    }
    // The socket may have gone since it was looked up.
    long action = bpf_redirect_map(&sockets, queue, XDP_DROP);
    if (action == XDP_DROP)
        count(ctx, DROPPED_NO_SOCKET);
    return action;
}

char _license[] SEC("license") = "Dual MIT/GPL";
