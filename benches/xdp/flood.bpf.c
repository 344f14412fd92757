// Both ends of the veth bench.
//
// flood: a generator inside the kernel. Run on live frames by BPF_PROG_TEST_RUN, it makes each frame a packet of one of
//        FLOWS flows, drawn at random, and redirects it out of an interface.
// sink:  the end of the road. Counts every packet and drops it.
//
// Header-free, for the reasons given in dataplane/xdp/weir.bpf.c; rebuilt by build.sh and checked in with its object.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

// linux/bpf.h
enum xdp_action { XDP_ABORTED = 0, XDP_DROP = 1 };
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6 };

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;

#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

#define FLOWS 4096

// What differs between the flows, each field as it stands in the packet. Checksums come ready from user space.
struct flow {
    u32 source;
    u16 ip_checksum;
    u16 source_port;
    u16 udp_checksum;
    u8 traffic_class;
    u8 unused;
};

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, FLOWS);
    TYPE(key, u32);
    TYPE(value, struct flow);
} flows SEC(".maps");

struct state {
    u64 sent;
    u64 random;
};

// By CPU: the generator runs on one.
struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct state);
} states SEC(".maps");

// Set by the loader before the program is loaded.
const volatile u32 interface_index = 0;
const volatile u32 seed = 1;

// Offsets in an untagged IPv4 packet without options.
enum { TRAFFIC_CLASS = 15, IP_CHECKSUM = 24, SOURCE = 26, SOURCE_PORT = 34, UDP_CHECKSUM = 40, HEADERS = 42 };

SEC("xdp")
int flood(struct xdp_md *ctx) {
    u8 *packet = (u8 *)(long)ctx->data;
    if (packet + HEADERS > (u8 *)(long)ctx->data_end)
        return XDP_ABORTED;
    u32 key = 0;
    struct state *state = bpf_map_lookup_elem(&states, &key);
    if (!state)
        return XDP_ABORTED;
    // Marsaglia's xorshift, 64 bits (13, 7, 17).
    u64 random = state->random ? state->random : seed;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    state->random = random;
    key = (random >> 32) & (FLOWS - 1);
    struct flow *flow = bpf_map_lookup_elem(&flows, &key);
    if (!flow)
        return XDP_ABORTED;
    packet[TRAFFIC_CLASS] = flow->traffic_class;
    *(u16 *)(packet + IP_CHECKSUM) = flow->ip_checksum;
    *(u32 *)(packet + SOURCE) = flow->source;
    *(u16 *)(packet + SOURCE_PORT) = flow->source_port;
    *(u16 *)(packet + UDP_CHECKSUM) = flow->udp_checksum;
    state->sent += 1;
    return bpf_redirect(interface_index, 0);
}

struct amount {
    u64 packets;
    u64 bytes;
};

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct amount);
} arrived SEC(".maps");

SEC("xdp")
int sink(struct xdp_md *ctx) {
    u32 key = 0;
    struct amount *amount = bpf_map_lookup_elem(&arrived, &key);
    if (amount) {
        amount->packets += 1;
        amount->bytes += ctx->data_end - ctx->data;
    }
    return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
