// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The sender of the engine `live`. Run on live frames by BPF_PROG_TEST_RUN, it turns each frame into the next packet of the
// mix and redirects it out of an interface, or skips the frame while no packet is due.
//
//   slot ─► entry ─► headers ─► flow ─► sequence, time ─► checksums ─► length ─► redirect
//
// The kernel gives a frame back with whatever was done to it on the way (a mark, a hop limit, another entry's headers), so
// every packet is written from its first byte to the end of the longest headers there are. Only the filling behind them is
// left alone; it depends on the place alone and is the same for all entries.
//
// Checksums are sums of 16-bit words as they lie in memory, which RFC 1071 section 2 (B) allows, and sums of 32-bit words
// are the same modulo 2^16 - 1.
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
enum xdp_action { XDP_ABORTED = 0, XDP_DROP = 1 };
enum { BPF_MAP_TYPE_ARRAY = 2 };

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
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

// A map definition that loaders read from BTF: each number is the length of an array type.
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

// Ethernet, two tags, IPv6, TCP and the probe, 14 + 8 + 40 + 20 + 18, in whole words.
#define HEADERS 104
// Ethernet, IPv4, UDP and the probe: the shortest packet there is.
#define SHORTEST 60
#define PROBE 18
// Sends between two looks at the clock when there is no schedule: as many frames as the kernel hands to a driver at once.
#define BULK 16

// 80 bits, in which flows are numbered.
struct number {
    u64 low;
    u64 high;
};

// One kind of packet: a length and a set of flows of one stream.
struct entry {
    // The headers, with everything that differs between packets 0.
    u64 headers[HEADERS / 8];
    // Sums over the template: the IPv4 header; what the transport's checksum covers.
    u64 ip_sum;
    u64 transport_sum;
    // Bytes of the packet: `frame_bytes` at most.
    u64 bytes;
    // Where fields lie that differ between packets. `ip_checksum_at` is 0 for IPv6, which has none.
    u64 ip_checksum_at;
    u64 source_at;
    u64 destination_at;
    u64 ports_at;
    u64 checksum_at;
    u64 probe_at;
    // Whether the transport's checksum covers the addresses, and what is written when it is computed to be zero.
    u64 covers_addresses;
    u64 zero_checksum;
    // Index into `sequences`, and the id that travels.
    u64 stream;
    u64 id;
    // The first addresses of the two prefixes, their low 32 bits as they lie in the packet.
    u64 source;
    u64 destination;
    // Flow `i` has number start + i * stride modulo combinations; `flow` and `number` are those of the next packet.
    u64 flows;
    u64 flow;
    struct number number;
    struct number start;
    struct number stride;
    struct number combinations;
    // A number's digits, the lowest first: bits of the source and of the destination address, source port, destination port.
    u64 source_bits;
    u64 destination_bits;
    u64 source_ports;
    u64 destination_ports;
    u64 source_port;
    u64 destination_port;
};

// How many entries each of these has is set by the loader.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct entry);
} entries SEC(".maps");

// Which entry each packet belongs to, round and round.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u64);
} slots SEC(".maps");

// The next number of each stream.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u64);
} sequences SEC(".maps");

#define LAG_BUCKETS 40

struct state {
    // Packets made.
    u64 sent;
    // The slot of the next one.
    u64 slot;
    // CLOCK_MONOTONIC, as last read.
    u64 now;
    // When the next packet is due, in ns and in 2^-32 of one. 0: when the program first runs.
    u64 due;
    u64 due_fraction;
    u64 lag_max;
    // Packets by how late they were made: bucket b holds 2^(b-1) to 2^b - 1 ns, the last one everything above.
    u64 lags[LAG_BUCKETS];
};

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct state);
} states SEC(".maps");

// Set by the loader before the program is loaded.
const volatile u32 interface_index = 0;
const volatile u32 slot_count = 1;
// Bytes of each frame before it is cut to its packet.
const volatile u32 frame_bytes = 0;
const volatile u64 phase = 0;
// Packets to make, after which every frame is skipped.
const volatile u64 packets_max = ~0ULL;
// From one packet to the next, in ns << 32; 0: as fast as it goes.
const volatile u64 interval = 0;

INLINE u32 bits_of(u64 value) {
    u32 bits = 0;
    if (value >> 32) { value >>= 32; bits += 32; }
    if (value >> 16) { value >>= 16; bits += 16; }
    if (value >> 8) { value >>= 8; bits += 8; }
    if (value >> 4) { value >>= 4; bits += 4; }
    if (value >> 2) { value >>= 2; bits += 2; }
    if (value >> 1) { value >>= 1; bits += 1; }
    return bits + (u32)value;
}

// When the next packet was to be sent, or 0 if that time has not come. Without a schedule it is now.
INLINE u64 intended(struct state *state) {
    if (!interval) {
        if (state->sent % BULK == 0)
            state->now = bpf_ktime_get_ns();
        return state->now;
    }
    u64 now = bpf_ktime_get_ns();
    state->now = now;
    if (!state->due)
        state->due = now;
    u64 due = state->due;
    if (now < due)
        return 0;
    u64 fraction = state->due_fraction + (interval & 0xffffffff);
    state->due = due + (interval >> 32) + (fraction >> 32);
    state->due_fraction = fraction & 0xffffffff;
    u64 lag = now - due;
    if (lag > state->lag_max)
        state->lag_max = lag;
    u32 bucket = bits_of(lag);
    if (bucket >= LAG_BUCKETS)
        bucket = LAG_BUCKETS - 1;
    state->lags[bucket] += 1;
    return due;
}

INLINE u64 halves(u64 words) {
    return (words & 0xffffffff) + (words >> 32);
}

// The Internet checksum of a sum.
INLINE u16 checksum(u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

// The fields of a flow as they lie in the packet.
struct flow {
    u32 source;
    u32 destination;
    u32 ports;
};

// The entry's next flow.
INLINE struct flow next_flow(struct entry *entry) {
    struct number number = entry->number;
    struct flow flow;
    u32 source_bits = entry->source_bits & 31, destination_bits = entry->destination_bits & 31;
    flow.source = (u32)entry->source | __builtin_bswap32(number.low & ((1U << source_bits) - 1));
    u64 rest = number.low >> source_bits;
    flow.destination = (u32)entry->destination | __builtin_bswap32(rest & ((1U << destination_bits) - 1));
    // What is left is below 2^32: the lowest bits of `high` come down, and the addresses have 48 bits at most.
    rest >>= destination_bits;
    u32 shift = source_bits + destination_bits;
    if (shift)
        rest |= number.high << (64 - shift);
    u64 source_port = rest, destination_port = 0;
    if (entry->source_ports == 1) {
        source_port = 0;
        destination_port = rest;
    } else if (entry->destination_ports != 1) {
        source_port = (u32)rest % (u32)entry->source_ports;
        destination_port = (u32)rest / (u32)entry->source_ports;
    }
    source_port += entry->source_port;
    destination_port += entry->destination_port;
    flow.ports = __builtin_bswap32((u32)source_port << 16 | (u32)destination_port);

    if (entry->flow + 1 >= entry->flows) {
        entry->flow = 0;
        entry->number = entry->start;
        return flow;
    }
    entry->flow += 1;
    u64 low = number.low + entry->stride.low;
    u64 high = number.high + entry->stride.high + (low < number.low);
    struct number wrap = entry->combinations;
    if (high > wrap.high || (high == wrap.high && low >= wrap.low)) {
        high -= wrap.high + (low < wrap.low);
        low -= wrap.low;
    }
    entry->number.low = low;
    entry->number.high = high;
    return flow;
}

// Writes the entry's headers, which end at `HEADERS` or where the frame does.
INLINE int write_headers(u8 *packet, u8 *end, const struct entry *entry) {
    if (packet + SHORTEST > end)
        return 0;
#pragma unroll
    for (u32 i = 0; i < SHORTEST / 8; i++)
        *(u64 *)(packet + 8 * i) = entry->headers[i];
    const u32 *words = (const u32 *)entry->headers;
    *(u32 *)(packet + SHORTEST - 4) = words[SHORTEST / 4 - 1];
#pragma unroll
    for (u32 at = SHORTEST; at < HEADERS; at += 4) {
        if (packet + at + 4 > end)
            break;
        *(u32 *)(packet + at) = words[at / 4];
    }
    return 1;
}

SEC("xdp")
int send(struct xdp_md *ctx) {
    u8 *packet = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u32 key = 0;
    struct state *state = bpf_map_lookup_elem(&states, &key);
    if (!state)
        return XDP_ABORTED;
    if (state->sent >= packets_max)
        return XDP_DROP;
    u64 time = intended(state);
    if (!time)
        return XDP_DROP;
    key = (u32)state->slot;
    u64 *slot = bpf_map_lookup_elem(&slots, &key);
    if (!slot)
        return XDP_ABORTED;
    key = (u32)*slot;
    struct entry *entry = bpf_map_lookup_elem(&entries, &key);
    if (!entry)
        return XDP_ABORTED;
    key = (u32)entry->stream;
    u64 *sequence = bpf_map_lookup_elem(&sequences, &key);
    if (!sequence || !write_headers(packet, end, entry))
        return XDP_ABORTED;

    struct flow flow = next_flow(entry);
    u64 addresses = (u64)flow.source + flow.destination;
    u64 number = __builtin_bswap64(entry->id << 48 | phase << 40 | (*sequence & 0xffffffffff));
    u64 stamp = __builtin_bswap64(time);
    u64 sum = entry->transport_sum + flow.ports + halves(number) + halves(stamp);
    if (entry->covers_addresses)
        sum += addresses;
    u16 transport_checksum = checksum(sum);
    if (!transport_checksum)
        transport_checksum = (u16)entry->zero_checksum;

    u8 *source = packet + (entry->source_at & 127);
    u8 *destination = packet + (entry->destination_at & 127);
    u8 *ports = packet + (entry->ports_at & 127);
    u8 *sum_field = packet + (entry->checksum_at & 127);
    u8 *probe = packet + (entry->probe_at & 127);
    if (source + 4 > end || destination + 4 > end || ports + 4 > end || sum_field + 2 > end || probe + PROBE > end)
        return XDP_ABORTED;
    if (entry->ip_checksum_at) {
        u8 *ip_checksum = packet + (entry->ip_checksum_at & 127);
        if (ip_checksum + 2 > end)
            return XDP_ABORTED;
        *(u16 *)ip_checksum = checksum(entry->ip_sum + addresses);
    }
    *(u32 *)source = flow.source;
    *(u32 *)destination = flow.destination;
    *(u32 *)ports = flow.ports;
    *(u16 *)sum_field = transport_checksum;
    *(u64 *)(probe + 2) = number;
    *(u64 *)(probe + 10) = stamp;

    int excess = (int)frame_bytes - (int)entry->bytes;
    if (excess && bpf_xdp_adjust_tail(ctx, -excess))
        return XDP_ABORTED;
    *sequence += 1;
    state->sent += 1;
    state->slot = state->slot + 1 < slot_count ? state->slot + 1 : 0;
    return bpf_redirect(interface_index, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
