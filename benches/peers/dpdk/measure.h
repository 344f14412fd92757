// Rounds of a loop, timed by the thread's processor time, and their order statistics as one line of JSON for each row: as
// the Rust benches have them (benches/src/summary.rs, machine.rs), so that the two can stand in one table.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64, ROUNDS = 31, ROUNDS_QUICK = 5 };

static int rounds_of(int argc, char **argv) {
    return argc > 1 && !strcmp(argv[1], "--quick") ? ROUNDS_QUICK : ROUNDS;
}

__attribute__((noreturn)) static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

// The compiler must compute `value`, and must take all memory for changed.
#define KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")

// Stands still while other processes have the core.
static uint64_t thread_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

// Marsaglia's xorshift of 64 bits (13, 7, 17) and the seed, as in the Rust benches.
static uint32_t below(uint32_t bound) {
    static uint64_t state = 20261121;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(((state >> 32) * bound) >> 32);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Sorts `ns`.
static void print_row(const char *name, double *ns, int rounds) {
    qsort(ns, rounds, sizeof *ns, ascending);
    double median = (ns[(rounds - 1) / 2] + ns[rounds / 2]) / 2;
    printf("{\"name\":\"%s\",\"ns\":{\"min\":%.3f,\"median\":%.3f,\"p90\":%.3f}}\n", name, ns[0], median,
           ns[(int)((rounds - 1) * 0.9 + 0.5)]);
    fflush(stdout);
}
