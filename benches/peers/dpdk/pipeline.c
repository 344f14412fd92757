// What DPDK needs for the work of weir's pipeline: parse, look up by rte_hash, meter by trTCM, mark, queue in rte_sched.
//
//     pipeline [--quick]
//
// The opposite number of benches/benches/pipeline.rs, with its packets (benches/src/workload.rs): 64-byte frames (60 without
// FCS) of 4,096 UDP flows at random, of 1,000 services with a contract each; half of the contracts are so narrow that nearly
// all of their packets are excess, and re-marked. A pass is 2,048 packets in as many mbufs, in batches of 64. Timed is
// what is done to a pass; between two, all frames become packets of newly drawn flows.
//
// It counts nothing: weir counts packets and bytes of each contract and each port.

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_meter.h>
#include <rte_prefetch.h>
#include <rte_sched.h>
#include <rte_udp.h>

#include "measure.h"

enum {
    SERVICES = 1000,
    FLOWS = 4096,
    PASS = 2048,
    PASSES = 100, // of a round
    WARM_UP = 40, // passes: after them the narrow contracts have used up the burst that they begin with
    FRAME_BYTES = 60,
    PIPES = 64,
    CLASSES = 4,
    BATCH_NS = 6400, // 64 packets at 10 million a second
};

// As in workload.rs: classes and the DSCP of their excess.
static const uint8_t dscps[CLASSES] = {46, 26, 10, 0}, excess_dscps[CLASSES] = {45, 25, 9, 1};
// Three strict ones, and best effort for the last.
static const uint8_t traffic_classes[CLASSES] = {0, 1, 2, RTE_SCHED_TRAFFIC_CLASS_BE};

struct key {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint8_t protocol, dscp;
    uint16_t zero;
};

// One service's, with all that the loop wants to know of it, on two cache lines.
struct contract {
    struct rte_meter_trtcm meter;
    uint8_t excess_dscp;
    uint8_t traffic_class;
    uint8_t pipe;
    struct rte_meter_trtcm_profile profile;
} __rte_cache_aligned;

static struct contract contracts[SERVICES];
static uint8_t packets[FLOWS][FRAME_BYTES];
static struct rte_mbuf *mbufs[PASS];
static struct rte_hash *by_flow, *by_service;
static struct rte_sched_port *port;
static uint64_t now, batch_cycles;

// Everything known of a batch, from stage to stage.
struct batch {
    struct rte_mbuf *mbufs[BATCH];
    struct rte_ipv4_hdr *ips[BATCH];
    struct key keys[BATCH];
    struct contract *contracts[BATCH];
    enum rte_color colors[BATCH];
};

// What a contract is looked up by: the flow (4,096 keys), or the service's /24 and the class (1,000 keys).
enum look_up { BY_FLOW, BY_SERVICE };

#define INLINE static inline __attribute__((always_inline))

// Which keys they are; what is no UDP over IPv4 does not occur here, but has to be looked for.
INLINE void parse(struct batch *batch, enum look_up look_up) {
    for (int i = 0; i < BATCH; i++)
        rte_prefetch0(rte_pktmbuf_mtod(batch->mbufs[i], void *));
    for (int i = 0; i < BATCH; i++) {
        struct rte_mbuf *mbuf = batch->mbufs[i];
        struct rte_ether_hdr *ether = rte_pktmbuf_mtod(mbuf, struct rte_ether_hdr *);
        struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
        struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
        if (mbuf->data_len < sizeof *ether + sizeof *ip + sizeof *udp ||
            ether->ether_type != RTE_BE16(RTE_ETHER_TYPE_IPV4) || ip->version_ihl != 0x45 ||
            ip->next_proto_id != IPPROTO_UDP || rte_be_to_cpu_16(ip->total_length) > mbuf->data_len - sizeof *ether)
            fail("a packet that is not of this bench");
        batch->ips[i] = ip;
        batch->keys[i] = look_up == BY_FLOW
                             ? (struct key){ip->src_addr, ip->dst_addr,      udp->src_port,           udp->dst_port,
                                            IPPROTO_UDP,  ip->type_of_service >> 2, 0}
                             : (struct key){ip->src_addr & RTE_BE32(0xffffff00), 0, 0, 0, 0, ip->type_of_service >> 2, 0};
    }
}

INLINE void look_up_batch(struct batch *batch, enum look_up look_up) {
    const void *keys[BATCH];
    void *found[BATCH];
    uint64_t hits;
    for (int i = 0; i < BATCH; i++)
        keys[i] = &batch->keys[i];
    rte_hash_lookup_bulk_data(look_up == BY_FLOW ? by_flow : by_service, keys, BATCH, &hits, found);
    if (hits != UINT64_MAX)
        fail("a flow without a contract");
    for (int i = 0; i < BATCH; i++) {
        batch->contracts[i] = found[i];
        rte_prefetch0(&batch->contracts[i]->meter);
        rte_prefetch0(&batch->contracts[i]->profile.cir_bytes_per_period);
    }
}

INLINE void meter(struct batch *batch) {
    now += batch_cycles;
    for (int i = 0; i < BATCH; i++) {
        struct contract *contract = batch->contracts[i];
        batch->colors[i] = rte_meter_trtcm_color_blind_check(&contract->meter, &contract->profile, now,
                                                             rte_be_to_cpu_16(batch->ips[i]->total_length));
    }
}

// RFC 1624: the checksum is brought up to date, not computed again.
INLINE void set_dscp(struct rte_ipv4_hdr *ip, uint8_t dscp) {
    uint8_t before = ip->type_of_service, after = (uint8_t)(dscp << 2) | (before & 3);
    ip->type_of_service = after;
    uint32_t sum = (uint16_t)~ip->hdr_checksum + (uint16_t)~RTE_BE16((uint16_t)before) + RTE_BE16((uint16_t)after);
    sum = (sum & 0xffff) + (sum >> 16);
    ip->hdr_checksum = (uint16_t)~(sum + (sum >> 16));
}

INLINE void mark(struct batch *batch) {
    for (int i = 0; i < BATCH; i++) {
        if (batch->colors[i] != RTE_COLOR_GREEN)
            set_dscp(batch->ips[i], batch->contracts[i]->excess_dscp);
    }
}

INLINE void name_queues(struct batch *batch) {
    for (int i = 0; i < BATCH; i++) {
        const struct contract *contract = batch->contracts[i];
        rte_sched_port_pkt_write(port, batch->mbufs[i], 0, contract->pipe, contract->traffic_class, 0, batch->colors[i]);
    }
}

// Returns how many have come out.
INLINE int schedule(struct batch *batch) {
    struct rte_mbuf *out[BATCH];
    if (rte_sched_port_enqueue(port, batch->mbufs, BATCH) != BATCH)
        fail("rte_sched has dropped packets");
    return rte_sched_port_dequeue(port, out, BATCH);
}

// What rte_sched still holds at the end of a pass: it may give less than it has when asked once.
static void drain(int held) {
    struct rte_mbuf *out[BATCH];
    for (int tries = 0; held > 0; tries++) {
        held -= rte_sched_port_dequeue(port, out, BATCH);
        if (tries == 1000)
            fail("packets stay in rte_sched");
    }
}

INLINE void whole(enum look_up look_up, int scheduled) {
    int held = 0;
    for (int at = 0; at < PASS; at += BATCH) {
        struct batch batch;
        memcpy(batch.mbufs, &mbufs[at], sizeof batch.mbufs);
        parse(&batch, look_up);
        look_up_batch(&batch, look_up);
        meter(&batch);
        mark(&batch);
        if (scheduled) {
            name_queues(&batch);
            held += BATCH - schedule(&batch);
        }
    }
    drain(held);
}

static void whole_by_flow(void) { whole(BY_FLOW, 1); }
static void whole_by_service(void) { whole(BY_SERVICE, 1); }
static void unscheduled_by_flow(void) { whole(BY_FLOW, 0); }
static void unscheduled_by_service(void) { whole(BY_SERVICE, 0); }

// The same pass of batches from stage to stage.
static struct batch batches[PASS / BATCH];
#define EACH_BATCH(work)                                                                                               \
    for (struct batch *batch = batches; batch < batches + PASS / BATCH; batch++)                                       \
    work

static void take_pass(void) {
    int at = 0;
    EACH_BATCH({
        memcpy(batch->mbufs, &mbufs[at], sizeof batch->mbufs);
        at += BATCH;
    });
}

static void parse_by_flow(void) { EACH_BATCH(parse(batch, BY_FLOW)); }
static void parse_by_service(void) { EACH_BATCH(parse(batch, BY_SERVICE)); }
static void look_up_by_flow(void) { EACH_BATCH(look_up_batch(batch, BY_FLOW)); }
static void look_up_by_service(void) { EACH_BATCH(look_up_batch(batch, BY_SERVICE)); }
static void meter_pass(void) { EACH_BATCH(meter(batch)); }
static void mark_pass(void) {
    static uint8_t dscp;
    dscp ^= 20;
    EACH_BATCH({
        for (int i = 0; i < BATCH; i++)
            set_dscp(batch->ips[i], 25 ^ dscp);
    });
}
static void schedule_pass(void) {
    int held = 0;
    EACH_BATCH({
        name_queues(batch);
        held += BATCH - schedule(batch);
    });
    drain(held);
}

// Frames become packets of newly drawn flows, so that re-marked packets do not come back as such.
static void reload(void) {
    for (int i = 0; i < PASS; i++)
        memcpy(rte_pktmbuf_mtod(mbufs[i], void *), packets[below(FLOWS)], FRAME_BYTES);
}

static void row(const char *name, void (*work)(void), int fresh, int rounds) {
    double ns[ROUNDS];
    for (int round = -1; round < rounds; round++) {
        int passes = round < 0 ? WARM_UP : PASSES;
        uint64_t spent = 0;
        for (int pass = 0; pass < passes; pass++) {
            if (fresh)
                reload();
            uint64_t start = thread_ns();
            work();
            spent += thread_ns() - start;
        }
        if (round >= 0)
            ns[round] = (double)spent / passes / PASS;
    }
    print_row(name, ns, rounds);
}

// How many packets are excess, to be compared with weir's bench.
static void count_excess(void) {
    reload();
    take_pass();
    parse_by_flow();
    look_up_by_flow();
    meter_pass();
    int excess = 0;
    EACH_BATCH({
        for (int i = 0; i < BATCH; i++)
            excess += batch->colors[i] != RTE_COLOR_GREEN;
    });
    fprintf(stderr, "%.0f %% of the packets are excess\n", 100.0 * excess / PASS);
}

static struct rte_hash *table_of(const char *name, int entries) {
    struct rte_hash_parameters parameters = {
        .name = name, .entries = 2 * entries, .key_len = sizeof(struct key), .hash_func = rte_hash_crc};
    struct rte_hash *table = rte_hash_create(&parameters);
    if (!table)
        fail("no hash table");
    return table;
}

static void set_up_contracts(void) {
    for (int service = 0; service < SERVICES; service++) {
        struct contract *contract = &contracts[service];
        contract->traffic_class = traffic_classes[service % CLASSES];
        contract->excess_dscp = excess_dscps[service % CLASSES];
        contract->pipe = service % PIPES;
        // 10 Gbit/s, or 8 kbit/s; bytes a second here.
        int wide = service / CLASSES % 2 == 0;
        uint64_t rate = wide ? 1250000000 : 1000, burst = wide ? 1250000 : 1500;
        struct rte_meter_trtcm_params params = {.cir = rate, .pir = 2 * rate, .cbs = burst, .pbs = 2 * burst};
        if (rte_meter_trtcm_profile_config(&contract->profile, &params) ||
            rte_meter_trtcm_config(&contract->meter, &contract->profile))
            fail("a meter is refused");
        struct key key = {.source = rte_cpu_to_be_32(0x0a000000 | (uint32_t)service << 8),
                          .dscp = dscps[service % CLASSES]};
        if (rte_hash_add_key_data(by_service, &key, contract))
            fail("a service is refused");
    }
}

static void set_up_flows(void) {
    for (int flow = 0; flow < FLOWS; flow++) {
        int service = flow % SERVICES;
        struct rte_ether_hdr ether = {{{2, 0, 0, 0, 0, 2}}, {{2, 0, 0, 0, 0, 1}}, RTE_BE16(RTE_ETHER_TYPE_IPV4)};
        struct rte_ipv4_hdr ip = {
            .version_ihl = 0x45,
            .type_of_service = (uint8_t)(dscps[service % CLASSES] << 2),
            .total_length = RTE_BE16(FRAME_BYTES - 14),
            .time_to_live = 64,
            .next_proto_id = IPPROTO_UDP,
            .src_addr = rte_cpu_to_be_32(0x0a000000 | (uint32_t)service << 8 | (below(254) + 1)),
            .dst_addr = RTE_BE32(RTE_IPV4(198, 18, 0, 1)),
        };
        struct rte_udp_hdr udp = {rte_cpu_to_be_16((uint16_t)(1024 + flow)), RTE_BE16(9), RTE_BE16(FRAME_BYTES - 34), 0};
        ip.hdr_checksum = rte_ipv4_cksum(&ip);
        memcpy(packets[flow], &ether, sizeof ether);
        memcpy(packets[flow] + 14, &ip, sizeof ip);
        memcpy(packets[flow] + 34, &udp, sizeof udp);
        struct key key = {ip.src_addr, ip.dst_addr, udp.src_port, udp.dst_port, IPPROTO_UDP, dscps[service % CLASSES], 0};
        if (rte_hash_add_key_data(by_flow, &key, &contracts[service]))
            fail("a flow is refused");
    }
}

static void set_up_mbufs(void) {
    struct rte_mempool *pool = rte_pktmbuf_pool_create("packets", PASS, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (!pool || rte_pktmbuf_alloc_bulk(pool, mbufs, PASS))
        fail("no mbufs");
    for (int i = 0; i < PASS; i++)
        rte_pktmbuf_append(mbufs[i], FRAME_BYTES);
}

// One port of 100 Gbit/s that never holds a packet back, its one subport and the pipes likewise: what is measured is the
// scheduler's own time. Queues of 64 packets as in DPDK's example qos_sched; no RED.
static void set_up_scheduler(void) {
    const uint64_t rate = 12500000000;
    struct rte_sched_subport_profile_params subport_profile = {.tb_rate = rate, .tb_size = 1000000, .tc_period = 10};
    struct rte_sched_pipe_params pipe_profile = {.tb_rate = rate, .tb_size = 1000000, .tc_period = 40, .tc_ov_weight = 1};
    struct rte_sched_subport_params subport = {.n_pipes_per_subport_enabled = PIPES,
                                               .pipe_profiles = &pipe_profile,
                                               .n_pipe_profiles = 1,
                                               .n_max_pipe_profiles = 1};
    for (int class = 0; class < RTE_SCHED_TRAFFIC_CLASSES_PER_PIPE; class++) {
        subport_profile.tc_rate[class] = rate;
    }
    for (int class = 0; class < CLASSES; class++) {
        pipe_profile.tc_rate[traffic_classes[class]] = rate;
        subport.qsize[traffic_classes[class]] = 64;
    }
    memset(pipe_profile.wrr_weights, 1, sizeof pipe_profile.wrr_weights);
    struct rte_sched_port_params parameters = {.name = "port",
                                               .socket = 0,
                                               .rate = rate,
                                               .mtu = 1522,
                                               .frame_overhead = RTE_SCHED_FRAME_OVERHEAD_DEFAULT,
                                               .n_subports_per_port = 1,
                                               .subport_profiles = &subport_profile,
                                               .n_subport_profiles = 1,
                                               .n_max_subport_profiles = 1,
                                               .n_pipes_per_subport = PIPES};
    port = rte_sched_port_config(&parameters);
    if (!port || rte_sched_subport_config(port, 0, &subport, 0))
        fail("rte_sched refuses its port");
    for (int pipe = 0; pipe < PIPES; pipe++) {
        if (rte_sched_pipe_config(port, 0, pipe, 0))
            fail("rte_sched refuses a pipe");
    }
}

int main(int argc, char **argv) {
    char *eal[] = {argv[0], "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=error", "-m", "256"};
    if (rte_eal_init(sizeof eal / sizeof *eal, eal) < 0)
        fail("EAL does not start");
    by_flow = table_of("by_flow", FLOWS);
    by_service = table_of("by_service", SERVICES);
    set_up_contracts();
    set_up_flows();
    set_up_mbufs();
    set_up_scheduler();
    now = rte_get_tsc_cycles();
    batch_cycles = rte_get_tsc_hz() * BATCH_NS / 1000000000;
    int rounds = rounds_of(argc, argv);
    row("whole, rte_hash on the flow", whole_by_flow, 1, rounds);
    row("whole, rte_hash on service and class", whole_by_service, 1, rounds);
    row("whole without rte_sched, on the flow", unscheduled_by_flow, 1, rounds);
    row("whole without rte_sched, on service and class", unscheduled_by_service, 1, rounds);
    reload();
    take_pass();
    row("parse", parse_by_flow, 0, rounds);
    row("look up, 4096 flows", look_up_by_flow, 0, rounds);
    row("meter", meter_pass, 0, rounds);
    row("mark, every packet changed", mark_pass, 0, rounds);
    row("rte_sched enqueue and dequeue", schedule_pass, 0, rounds);
    reload();
    parse_by_service();
    row("look up, 1000 services", look_up_by_service, 0, rounds);
    count_excess();
    return 0;
}
