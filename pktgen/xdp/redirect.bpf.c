// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The receiver's XDP program: every packet goes to the socket that serves its queue, and to the kernel if none does.
//
// Header-free, so that building it needs nothing but clang; the object beside it is what the Rust code loads. build.sh builds it.

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

// linux/bpf.h
enum { XDP_PASS = 2 };
enum { BPF_MAP_TYPE_XSKMAP = 17 };

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

// A helper by its number in linux/bpf.h.
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

// A map definition that loaders read from BTF: each number is the length of an array type.
struct {
    int(*type)[BPF_MAP_TYPE_XSKMAP];
    int(*max_entries)[64];
    u32 *key;
    u32 *value;
} sockets SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *ctx) {
    return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
