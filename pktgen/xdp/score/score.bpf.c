// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The receiver of the engine `live`: scores each packet of ours where it arrives, and drops it. Everything else goes to the
// kernel, counted.
//
// Which numbers of a stream have come is kept in a window of words, each of them the numbers of one block of 32: a bit for
// each, and above them which turn of the window the block belongs to. A word of an earlier turn is simply replaced, so
// nothing has to be cleared when the numbers jump, and one compare-and-swap makes it right on any number of CPUs.
//
// Checksums are not verified: that would cost a pass over the packet.
//
// Header-free, for the reasons given in dataplane/xdp/weir.bpf.c; build.sh builds the object beside it. All structures
// are made of 64-bit words, because that is how user space reads and writes them.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// linux/bpf.h
enum xdp_action { XDP_DROP = 1, XDP_PASS = 2 };
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6 };

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

// A map definition that loaders read from BTF: each number is the length of an array type.
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

// The index of each stream id, plus one; 0: no such stream.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 65536);
    TYPE(key, u32);
    TYPE(value, u64);
} indices SEC(".maps");

// Blocks of 32 numbers that the window holds: 65,536 numbers.
#define BLOCKS 2048

struct window {
    // One more than the highest number seen.
    u64 next;
    // Turn of the window << 32 | bits.
    u64 blocks[BLOCKS];
};

// By stream. How many entries this and the next one have is set by the loader.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct window);
} windows SEC(".maps");

// Latencies below 16 ns have a bucket each, and every doubling above has 16, up to 2^40 ns.
#define LATENCY_BUCKETS (16 * 37)

struct score {
    u64 unique;
    u64 ip_bytes;
    u64 reordered;
    u64 duplicated;
    u64 too_old;
    u64 congestion_marked;
    u64 latency_max;
    u64 by_dscp[64];
    u64 latency[LATENCY_BUCKETS];
};

// By stream and phase: stream * phases + phase.
struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct score);
} scores SEC(".maps");

struct others {
    u64 foreign;
    u64 unknown_stream;
};

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct others);
} others SEC(".maps");

// Set by the loader before the program is loaded.
// Phases told apart, a power of two, minus one.
const volatile u32 phase_mask = 0;
// The latency is taken of packets whose number has none of these bits.
const volatile u64 latency_mask = 0;

#define MAGIC 0x7765
#define PROBE 18
enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };
enum { ECHO_REQUEST = 8, ECHO_REQUEST_V6 = 128 };
// The shortest header of a transport, and that of TCP without options.
enum { SHORT_BYTES = 8, TCP_BYTES = 20 };

INLINE u16 be16(const u8 *at) {
    return __builtin_bswap16(*(const u16 *)at);
}

// What the headers of a packet say.
struct seen {
    u32 stream;
    u32 phase;
    u64 sequence;
    u64 intended;
    u32 traffic_class;
    u32 ip_bytes;
};

// Ethernet, up to two tags, IPv4 without options and fragments or IPv6 without extension headers; UDP, TCP without options or
// an echo request; the probe.
INLINE int dissect(const u8 *packet, const u8 *end, struct seen *seen) {
    if (packet + 14 > end)
        return 0;
    u16 ethertype = be16(packet + 12);
    const u8 *ip = packet + 14;
#pragma unroll
    for (int tag = 0; tag < 2; tag++) {
        if (ethertype != 0x8100 && ethertype != 0x88a8)
            break;
        if (ip + 4 > end)
            return 0;
        ethertype = be16(ip + 2);
        ip += 4;
    }
    const u8 *transport;
    u8 protocol;
    if (ethertype == 0x0800) {
        if (ip + 20 > end || ip[0] != 0x45 || be16(ip + 6) & 0x3fff)
            return 0;
        seen->traffic_class = ip[1];
        seen->ip_bytes = be16(ip + 2);
        protocol = ip[9];
        transport = ip + 20;
    } else if (ethertype == 0x86dd) {
        if (ip + 40 > end || ip[0] >> 4 != 6)
            return 0;
        seen->traffic_class = (be16(ip) >> 4) & 0xff;
        seen->ip_bytes = be16(ip + 4) + 40;
        protocol = ip[6];
        transport = ip + 40;
    } else {
        return 0;
    }
    if (transport + SHORT_BYTES + PROBE > end)
        return 0;
    const u8 *probe = transport + SHORT_BYTES;
    if (protocol == TCP && transport[12] >> 4 == TCP_BYTES / 4)
        probe = transport + TCP_BYTES;
    else if (protocol != UDP && !(protocol == ICMP && transport[0] == ECHO_REQUEST) &&
             !(protocol == ICMPV6 && transport[0] == ECHO_REQUEST_V6))
        return 0;
    if (probe + PROBE > end || be16(probe) != MAGIC)
        return 0;
    u64 numbers = __builtin_bswap64(*(const u64 *)(probe + 2));
    seen->stream = numbers >> 48;
    seen->phase = (numbers >> 40) & 0xff;
    seen->sequence = numbers & 0xffffffffff;
    seen->intended = __builtin_bswap64(*(const u64 *)(probe + 10));
    return 1;
}

// The number of which `low` is the low 40 bits: the one nearest to the next expected.
INLINE u64 extend(u64 low, u64 next) {
    const u64 span = 1ULL << 40;
    u64 ahead = (low - next) & (span - 1);
    u64 behind = span - ahead;
    if (ahead < span / 2 || behind > next)
        return next + ahead;
    return next - behind;
}

enum arrival { IN_ORDER, REORDERED, DUPLICATE, TOO_OLD };

// What a number says that is the nearest to `next`, the next expected.
INLINE enum arrival arrived(struct window *window, u64 sequence, u64 next) {
    // So far back, its block may share a word with that of the latest.
    if (sequence < next && next - sequence > 32 * (BLOCKS - 1))
        return TOO_OLD;
    u64 turn = (sequence / 32 / BLOCKS) & 0xffffffff;
    u64 bit = 1ULL << (sequence & 31);
    u64 *block = &window->blocks[(sequence / 32) & (BLOCKS - 1)];
    u64 old = *(volatile u64 *)block;
    int is_set = 0;
    // Another CPU's packet of the same block makes it try again; each try that fails is one of 32 that succeeded.
    for (int i = 0; i < 32; i++) {
        int turns_ahead = (int)((u32)(old >> 32) - (u32)turn);
        if (turns_ahead > 0)
            return TOO_OLD;
        if (turns_ahead == 0 && old & bit)
            return DUPLICATE;
        u64 new = turns_ahead == 0 ? old | bit : turn << 32 | bit;
        u64 found = __sync_val_compare_and_swap(block, old, new);
        if (found == old) {
            is_set = 1;
            break;
        }
        old = found;
    }
    if (!is_set)
        return TOO_OLD;
    if (sequence < next)
        return REORDERED;
    for (int i = 0; i < 32 && sequence >= next; i++) {
        u64 found = __sync_val_compare_and_swap(&window->next, next, sequence + 1);
        if (found == next)
            break;
        next = found;
    }
    return IN_ORDER;
}

INLINE u32 log2_of(u64 value) {
    u32 bits = 0;
    if (value >> 32) { value >>= 32; bits += 32; }
    if (value >> 16) { value >>= 16; bits += 16; }
    if (value >> 8) { value >>= 8; bits += 8; }
    if (value >> 4) { value >>= 4; bits += 4; }
    if (value >> 2) { value >>= 2; bits += 2; }
    if (value >> 1) { bits += 1; }
    return bits;
}

INLINE void measure(struct score *score, u64 intended) {
    u64 now = bpf_ktime_get_ns();
    // A packet before its time comes from another machine's clock.
    u64 latency = now > intended ? now - intended : 0;
    if (latency > score->latency_max)
        score->latency_max = latency;
    if (latency >= 1ULL << 40)
        latency = (1ULL << 40) - 1;
    u32 bucket = (u32)latency;
    if (latency >= 16) {
        u32 exponent = log2_of(latency);
        bucket = (exponent - 3) * 16 + ((u32)(latency >> (exponent - 4)) & 15);
    }
    if (bucket < LATENCY_BUCKETS)
        score->latency[bucket] += 1;
}

INLINE int count_other(int is_ours) {
    u32 key = 0;
    struct others *other = bpf_map_lookup_elem(&others, &key);
    if (other) {
        other->foreign += !is_ours;
        other->unknown_stream += is_ours;
    }
    return is_ours ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int score(struct xdp_md *ctx) {
    struct seen seen;
    if (!dissect((u8 *)(long)ctx->data, (u8 *)(long)ctx->data_end, &seen))
        return count_other(0);
    u32 key = seen.stream;
    u64 *index = bpf_map_lookup_elem(&indices, &key);
    if (!index || !*index)
        return count_other(1);
    u32 stream = (u32)*index - 1;
    struct window *window = bpf_map_lookup_elem(&windows, &stream);
    key = stream * (phase_mask + 1) + (seen.phase & phase_mask);
    struct score *score = bpf_map_lookup_elem(&scores, &key);
    if (!window || !score)
        return count_other(1);
    u64 next = *(volatile u64 *)&window->next;
    switch (arrived(window, extend(seen.sequence, next), next)) {
    case DUPLICATE:
        score->duplicated += 1;
        return XDP_DROP;
    case TOO_OLD:
        score->too_old += 1;
        return XDP_DROP;
    case REORDERED:
        score->reordered += 1;
        break;
    case IN_ORDER:
        break;
    }
    score->unique += 1;
    score->ip_bytes += seen.ip_bytes;
    score->congestion_marked += (seen.traffic_class & 3) == 3;
    score->by_dscp[(seen.traffic_class >> 2) & 63] += 1;
    if (!(seen.sequence & latency_mask))
        measure(score, seen.intended);
    return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
