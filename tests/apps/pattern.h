/* The pattern by which each byte of a message can be recomputed by its receiver, the clock, the
 * options, and one way to fail. Knows nothing of MPI: the includer says what VF_ABORT() is.
 *
 * A message is named by (source, tag, sequence number, length). A lost, doubled, reordered or
 * torn message differs from the expected pattern in its first bytes.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SYMVIRT_PATTERN_H
#define SYMVIRT_PATTERN_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
    const char *name;
    int rank, ranks, argc;
    char **argv;
    double seconds, start;
    long rounds, round;
    uint64_t messages, bytes;
} vf;

static inline double vf_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void vf_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAILED %s rank %d round %ld: ", vf.name, vf.rank, vf.round);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    fflush(stderr);
    va_end(arguments);
    VF_ABORT();
    abort();
}

#define VF_REQUIRE(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            vf_fail(__VA_ARGS__);                                                                  \
        }                                                                                          \
    } while (0)

/* splitmix64: a hash good enough that two different names never share 8 bytes. */
static inline uint64_t vf_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t vf_hash(uint64_t a, uint64_t b, uint64_t c)
{
    return vf_mix(vf_mix(vf_mix(a) ^ b) ^ c);
}

static inline uint64_t vf_seed(int source, int tag, uint64_t sequence, size_t length)
{
    return vf_hash(((uint64_t)(uint32_t)source << 32) | (uint32_t)tag, sequence, length);
}

static inline void vf_fill(void *buffer, size_t length, int source, int tag, uint64_t sequence)
{
    uint64_t word = vf_seed(source, tag, sequence, length);
    unsigned char *out = buffer;
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(out + at, &word, 8);
        word = word * 6364136223846793005u + 1442695040888963407u;
    }
    memcpy(out + at, &word, length - at);
}

static inline void vf_count(size_t length)
{
    __atomic_fetch_add(&vf.messages, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&vf.bytes, length, __ATOMIC_RELAXED);
}

static inline void vf_check(const void *buffer, size_t length, int source, int tag,
                            uint64_t sequence)
{
    uint64_t word = vf_seed(source, tag, sequence, length);
    const unsigned char *in = buffer;
    for (size_t at = 0; at < length; at += 8) {
        size_t bytes = length - at < 8 ? length - at : 8;
        if (memcmp(in + at, &word, bytes) != 0) {
            uint64_t got = 0;
            memcpy(&got, in + at, bytes);
            vf_fail("message source %d tag %d sequence %llu length %zu differs at byte %zu: "
                    "expected %016llx, got %016llx",
                    source, tag, (unsigned long long)sequence, length, at,
                    (unsigned long long)word, (unsigned long long)got);
        }
        word = word * 6364136223846793005u + 1442695040888963407u;
    }
    vf_count(length);
}

/* Bytes that no message may have written. */
static inline void vf_check_untouched(const void *buffer, size_t length, unsigned char poison)
{
    const unsigned char *in = buffer;
    for (size_t at = 0; at < length; at++) {
        VF_REQUIRE(in[at] == poison, "byte %zu behind a message was overwritten: %02x", at, in[at]);
    }
}

static inline void *vf_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);
    VF_REQUIRE(memory, "out of memory for %zu bytes", bytes);
    return memory;
}

static inline double vf_option(const char *option, double otherwise)
{
    for (int i = 1; i + 1 < vf.argc; i++) {
        if (strcmp(vf.argv[i], option) == 0) {
            return atof(vf.argv[i + 1]);
        }
    }
    return otherwise;
}

#endif
