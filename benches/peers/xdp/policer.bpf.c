// What a gateway like weir could be if it never left the kernel: a peer of the veth comparison.
//
//   IPv4 ──► longest prefix of the source = service ──► its contract for this DSCP ──► bucket ──► DSCP of excess ──► other port
//
// No queues, no order, no latency bound: excess leaves at once and in its place. Everything else leaves as it came.
// One direction, as the flood has one. Any number of cores may run it.
//
// Header-free, for the reasons given in dataplane/xdp/weir.bpf.c; rebuilt by build.sh and checked in with its object.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// linux/bpf.h
enum xdp_action { XDP_ABORTED = 0 };
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_LPM_TRIE = 11 };
enum { BPF_F_NO_PREALLOC = 1 };

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;

#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

#define SERVICES 1024

struct prefix {
    u32 bits;
    u32 address; // as in the packet
};

// To the position in `contracts`.
struct {
    UINT(type, BPF_MAP_TYPE_LPM_TRIE);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    UINT(max_entries, SERVICES);
    TYPE(key, struct prefix);
    TYPE(value, u32);
} services SEC(".maps");

// A bucket in one word, as GCRA has it: the instant at which it would be full again.
struct contract {
    u64 full_at;
    u64 byte_time; // ns, in units of 2^-16
    u64 burst_ns;
    u8 dscp, excess_dscp;
    u8 unused[6];
    u8 to_a_cache_line[32];
};

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, SERVICES);
    TYPE(key, u32);
    TYPE(value, struct contract);
} contracts SEC(".maps");

enum { CONFORMING, EXCESS, VERDICTS };

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, VERDICTS);
    TYPE(key, u32);
    TYPE(value, u64);
} verdicts SEC(".maps");

// Set by the loader before the program is loaded.
const volatile u32 interface_index = 0;

// Offsets in an untagged IPv4 packet; the addresses are before any options.
enum { ETHERTYPE = 12, TRAFFIC_CLASS = 15, TOTAL_LENGTH = 16, IP_CHECKSUM = 24, SOURCE = 26, HEADERS = 34 };
enum { ETHERTYPE_IPV4 = 0x0008 }; // as a little-endian processor reads it

// How often another core may come in between. Then the packet counts as excess: never too much is granted.
enum { TRIES = 8 };

INLINE int conforms(struct contract *contract, u64 now, u64 bytes) {
    u64 cost = bytes * contract->byte_time >> 16;
    u64 before = *(volatile u64 *)&contract->full_at;
    for (int i = 0; i < TRIES; i++) {
        u64 full_at = (before > now ? before : now) + cost;
        if (full_at > now + contract->burst_ns)
            return 0;
        u64 found = __sync_val_compare_and_swap(&contract->full_at, before, full_at);
        if (found == before)
            return 1;
        before = found;
    }
    return 0;
}

// RFC 1624. The ECN bits stay.
INLINE void set_dscp(u8 *packet, u8 dscp) {
    u8 before = packet[TRAFFIC_CLASS], after = (u8)(dscp << 2) | (before & 3);
    packet[TRAFFIC_CLASS] = after;
    // The traffic class is the second byte of its word, the upper one for a little-endian processor.
    u32 sum = (u16)~*(u16 *)(packet + IP_CHECKSUM) + (u16) ~((u16)before << 8) + ((u32)after << 8);
    sum = (sum & 0xffff) + (sum >> 16);
    *(u16 *)(packet + IP_CHECKSUM) = (u16)~(sum + (sum >> 16));
}

SEC("xdp")
int policer(struct xdp_md *ctx) {
    u8 *packet = (u8 *)(long)ctx->data;
    if (packet + HEADERS > (u8 *)(long)ctx->data_end || *(u16 *)(packet + ETHERTYPE) != ETHERTYPE_IPV4)
        goto forward;
    struct prefix prefix = {32, *(u32 *)(packet + SOURCE)};
    u32 *number = bpf_map_lookup_elem(&services, &prefix);
    if (!number)
        goto forward;
    struct contract *contract = bpf_map_lookup_elem(&contracts, number);
    if (!contract || packet[TRAFFIC_CLASS] >> 2 != contract->dscp)
        goto forward;
    u32 verdict = CONFORMING;
    if (!conforms(contract, bpf_ktime_get_ns(), __builtin_bswap16(*(u16 *)(packet + TOTAL_LENGTH)))) {
        set_dscp(packet, contract->excess_dscp);
        verdict = EXCESS;
    }
    u64 *packets = bpf_map_lookup_elem(&verdicts, &verdict);
    if (packets)
        *packets += 1;
forward:
    return bpf_redirect(interface_index, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
