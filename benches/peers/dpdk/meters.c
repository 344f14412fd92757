// What a check by DPDK's meters costs: one hot, and 10,000 and 1,000,000 at random.
//
//     meters [--quick]
//
// The opposite number of benches/benches/meters.rs. One thread: these meters are not made for more. No clock is read; time
// goes on by a constant, a packet every 100 ns, at once for each batch. All packets are green, which costs both sides most.

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_meter.h>
#include <rte_prefetch.h>

#include "measure.h"

enum {
    CHECKS = 1 << 20, // of a round, each of a meter drawn at random
    PACKET_BYTES = 46,
    PACKETS_PER_SECOND = 10000000,
};

#define INLINE static inline __attribute__((always_inline))

// One of the three RFCs. Constant wherever it is used, so that the checks are inlined.
struct kind {
    const char *name;
    size_t meter_bytes, profile_bytes;
    int (*configure)(void *meter, void *profile, uint64_t rate, uint64_t burst); // bytes/s, bytes
    int (*check)(void *meter, void *profile, uint64_t now);
};

static int trtcm_configure(void *meter, void *profile, uint64_t rate, uint64_t burst) {
    struct rte_meter_trtcm_params params = {.cir = rate, .pir = 2 * rate, .cbs = burst, .pbs = 2 * burst};
    return rte_meter_trtcm_profile_config(profile, &params) || rte_meter_trtcm_config(meter, profile);
}

INLINE int trtcm_check(void *meter, void *profile, uint64_t now) {
    return rte_meter_trtcm_color_blind_check(meter, profile, now, PACKET_BYTES);
}

static int srtcm_configure(void *meter, void *profile, uint64_t rate, uint64_t burst) {
    struct rte_meter_srtcm_params params = {.cir = rate, .cbs = burst, .ebs = burst};
    return rte_meter_srtcm_profile_config(profile, &params) || rte_meter_srtcm_config(meter, profile);
}

INLINE int srtcm_check(void *meter, void *profile, uint64_t now) {
    return rte_meter_srtcm_color_blind_check(meter, profile, now, PACKET_BYTES);
}

static int rfc4115_configure(void *meter, void *profile, uint64_t rate, uint64_t burst) {
    struct rte_meter_trtcm_rfc4115_params params = {.cir = rate, .eir = rate, .cbs = burst, .ebs = burst};
    return rte_meter_trtcm_rfc4115_profile_config(profile, &params) || rte_meter_trtcm_rfc4115_config(meter, profile);
}

INLINE int rfc4115_check(void *meter, void *profile, uint64_t now) {
    return rte_meter_trtcm_rfc4115_color_blind_check(meter, profile, now, PACKET_BYTES);
}

#define KIND(label, kind, meter, profile) {label, sizeof(meter), sizeof(profile), kind##_configure, kind##_check}
static const struct kind trtcm = KIND("RFC 2698", trtcm, struct rte_meter_trtcm, struct rte_meter_trtcm_profile);
static const struct kind srtcm = KIND("RFC 2697", srtcm, struct rte_meter_srtcm, struct rte_meter_srtcm_profile);
static const struct kind rfc4115 =
    KIND("RFC 4115", rfc4115, struct rte_meter_trtcm_rfc4115, struct rte_meter_trtcm_rfc4115_profile);

// Some meters, and the order in which they are asked.
struct set {
    char *meters, *profiles;
    uint32_t *order;
};

enum profiles { OWN, SHARED };
enum fetch { PLAIN, PREFETCH };
enum clock { EACH_BATCH, EACH_CHECK };

static void *zeroed(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory)
        fail("no memory for the meters");
    return memset(memory, 0, bytes);
}

INLINE struct set set_of(const struct kind kind, uint32_t count) {
    struct set set = {zeroed(count * kind.meter_bytes), zeroed(count * kind.profile_bytes),
                      zeroed(CHECKS * sizeof(uint32_t))};
    for (uint32_t i = 0; i < count; i++) {
        // 8 Gbit/s and some more: one meter may take all packets and stay green.
        uint64_t rate = 1000000000 + 1000 * (i & 1023), burst = 150000 + (i & 1023);
        if (kind.configure(set.meters + i * kind.meter_bytes, set.profiles + i * kind.profile_bytes, rate, burst))
            fail("a meter is refused");
    }
    for (int i = 0; i < CHECKS; i++)
        set.order[i] = below(count);
    return set;
}

static void set_free(struct set set) {
    free(set.meters);
    free(set.profiles);
    free(set.order);
}

INLINE uint64_t round_of(const struct kind kind, struct set set, uint64_t now, enum profiles profiles,
                         enum fetch fetch, enum clock clock) {
    const uint64_t step = rte_get_tsc_hz() / PACKETS_PER_SECOND;
    for (int at = 0; at < CHECKS; at += BATCH) {
        if (clock == EACH_BATCH)
            now += BATCH * step;
        if (fetch == PREFETCH) {
            for (int i = at; i < at + BATCH; i++) {
                rte_prefetch0(set.meters + set.order[i] * kind.meter_bytes);
                const char *profile = set.profiles + (profiles == OWN ? set.order[i] * kind.profile_bytes : 0);
                // It may lie across two lines.
                rte_prefetch0(profile);
                rte_prefetch0(profile + kind.profile_bytes - 1);
            }
        }
        for (int i = at; i < at + BATCH; i++) {
            if (clock == EACH_CHECK)
                now += step;
            char *profile = set.profiles + (profiles == OWN ? set.order[i] * kind.profile_bytes : 0);
            KEEP(kind.check(set.meters + set.order[i] * kind.meter_bytes, profile, now));
        }
    }
    return now;
}

// Meters of its own for each row: time has gone on for those of the row before, and does not go back.
INLINE void row(const struct kind kind, uint32_t count, enum profiles profiles, enum fetch fetch, enum clock clock,
                const char *what, int rounds) {
    struct set set = set_of(kind, count);
    uint64_t now = rte_get_tsc_cycles(); // By this clock they were filled.
    double ns[ROUNDS];
    for (int round = -1; round < rounds; round++) {
        uint64_t start = thread_ns();
        now = round_of(kind, set, now, profiles, fetch, clock);
        // The first warms the caches.
        if (round >= 0)
            ns[round] = (double)(thread_ns() - start) / CHECKS;
    }
    set_free(set);
    char name[80];
    snprintf(name, sizeof name, "%s, %s", kind.name, what);
    print_row(name, ns, rounds);
}

INLINE void rows(const struct kind kind, int rounds) {
    row(kind, 1, OWN, PLAIN, EACH_BATCH, "1 hot", rounds);
    row(kind, 1, OWN, PLAIN, EACH_CHECK, "1 hot, a new time for each", rounds);
    row(kind, 10000, OWN, PREFETCH, EACH_BATCH, "10000, prefetch", rounds);
    row(kind, 1000000, OWN, PREFETCH, EACH_BATCH, "1000000, prefetch", rounds);
}

int main(int argc, char **argv) {
    // For the frequency of its clock only.
    char *eal[] = {argv[0], "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=error", "-m", "64"};
    if (rte_eal_init(sizeof eal / sizeof *eal, eal) < 0)
        fail("EAL does not start");
    int rounds = rounds_of(argc, argv);
    rows(trtcm, rounds);
    // What prefetching, and a profile for each, mean to it shows in one kind.
    row(trtcm, 10000, OWN, PLAIN, EACH_BATCH, "10000", rounds);
    row(trtcm, 1000000, OWN, PLAIN, EACH_BATCH, "1000000", rounds);
    row(trtcm, 1000000, SHARED, PREFETCH, EACH_BATCH, "1000000, prefetch, one profile", rounds);
    rows(srtcm, rounds);
    rows(rfc4115, rounds);
    return 0;
}
