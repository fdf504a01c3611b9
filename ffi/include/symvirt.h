/* symvirt.h: what a program or a library may ask of SymVirt, and take part in.
 *
 * Nothing here is needed for a job to be moved. It is for programs that want to know (version,
 * state), for regions that must not be quiesced (hold, allow), and for libraries that hold RDMA
 * resources of their own (participants).
 *
 * Include it and use it: there is nothing to link. The functions are looked up in the process when
 * they are first called; where the library is not preloaded they say so (SYMVIRT_ABSENT) and do
 * nothing, so that a program runs the same without it. A program that links libsymvirt.so itself
 * may define SYMVIRT_LINKED before the inclusion. C99, or C++11.
 *
 * All functions may be called by any thread at any time, but not from a participant's callback or
 * a signal handler, and need no MPI_Init.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SYMVIRT_H
#define SYMVIRT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header. It is compatible with a library of the same major version; while that is 0, of
 * the same minor version too. */
#define SYMVIRT_VERSION_MAJOR 0
#define SYMVIRT_VERSION_MINOR 1

/* What the functions return. */
enum {
    SYMVIRT_OK = 0,
    /* The library is not in this process. */
    SYMVIRT_ABSENT = -1,
    /* An argument is null, or a struct's size is none that the library knows. */
    SYMVIRT_INVALID = -2,
    /* symvirt_allow without symvirt_hold, or symvirt_remove of what is not added. */
    SYMVIRT_NOT_HELD = -3,
    /* Called from a participant's callback. */
    SYMVIRT_IN_CALLBACK = -4
};

/* Kinds of peers. */
enum {
    SYMVIRT_SELF = 0,  /* this process */
    SYMVIRT_LOCAL = 1, /* other processes of this guest */
    SYMVIRT_REMOTE = 2 /* processes of other guests */
};
#define SYMVIRT_CLASSES 3
#define SYMVIRT_NAMES 128

/* See symvirt_get_state. */
struct symvirt_state {
    size_t size; /* sizeof(struct symvirt_state), by the caller */
    /* Grows with every switch; 0 is what the job was started on. */
    uint64_t epoch;
    /* Whether there is a gang: otherwise nothing is ever switched, and the rest is 0. */
    int member;
    /* A switch is being prepared or carried out. */
    int switching;
    /* Regions that hold this process. */
    unsigned holds;
    /* UCX's names of the transports that the present endpoints to each kind of peer have lanes
     * on, separated by commas, for example "rc_mlx5/mlx5_0:1,tcp/eth0"; empty without endpoints. */
    char transports[SYMVIRT_CLASSES][SYMVIRT_NAMES];
};

/* A switch, as participants see it. The strings live until the callback returns. */
struct symvirt_switch {
    size_t size;
    uint64_t epoch; /* that it leads to */
    /* Nonzero: the job stands still from release to acquire (mode "hold", a checkpoint). */
    int hold;
    /* What the new epoch uses, as UCX_TLS and UCX_NET_DEVICES name it; NULL: whatever is there.
     * Both are NULL where it is not known: in `prepare` and `release` of a hold, in `abort`. */
    const char *tls;
    const char *net_devices;
};

/* Another user of RDMA in the process. The callbacks are called by a helper thread of the library,
 * one at a time over all participants, with all signals blocked:
 *
 *                ┌── a refusal, or any abandonment ──► abort
 *     prepare ───┴─► release ───► acquire
 *
 * prepare  The switch is proposed. NULL agrees; a string refuses, and the switch is abandoned on
 *          all ranks with it as the reason. Nothing need be let go yet.
 * release  The job is on the new transports, or stands still. Let go of everything that keeps the
 *          old device open (queue pairs, regions, contexts, descriptors): the host unplugs it after
 *          all participants of all ranks have returned.
 * acquire  The transports that the switch leads to can be used.
 * abort    The switch does not take place: after `prepare`, in place of `release`.
 *
 * A string from `release` or `acquire` is what went wrong: it is logged as an error. A device that
 * was not let go makes the unplug fail by name. Strings must live until the participant's next
 * callback. Callbacks must not use MPI or UCX, and should take milliseconds. Those not needed may
 * be NULL. */
struct symvirt_participant {
    size_t size; /* sizeof(struct symvirt_participant) */
    const char *name; /* for the operator: who refused */
    void *context;    /* passed to each callback */
    const char *(*prepare)(void *context, const struct symvirt_switch *);
    const char *(*release)(void *context, const struct symvirt_switch *);
    const char *(*acquire)(void *context, const struct symvirt_switch *);
    void (*abort)(void *context, const struct symvirt_switch *);
};

/* With these types the functions are found; see below for what they do. */
typedef int symvirt_version_fn(unsigned *major, unsigned *minor, unsigned *patch);
typedef int symvirt_get_state_fn(struct symvirt_state *state);
typedef int symvirt_hold_fn(const char *region);
typedef int symvirt_allow_fn(void);
typedef int symvirt_add_fn(const struct symvirt_participant *participant);
typedef int symvirt_remove_fn(const char *name, void *context);

#ifdef SYMVIRT_LINKED

symvirt_version_fn symvirt_version;
symvirt_get_state_fn symvirt_get_state;
symvirt_hold_fn symvirt_hold;
symvirt_allow_fn symvirt_allow;
symvirt_add_fn symvirt_add;
symvirt_remove_fn symvirt_remove;

#else

#include <dlfcn.h>

/* The function of this name, or null. A preloaded library is found by the default search, whose
 * handle is null on Linux (RTLD_DEFAULT wants _GNU_SOURCE). */
#define SYMVIRT_FIND_(name)                                                                        \
    union {                                                                                        \
        void *found;                                                                               \
        name##_fn *call;                                                                           \
    } name##_entry;                                                                                \
    name##_entry.found = dlsym((void *)0, #name)

/* The library's version. */
static inline int symvirt_version(unsigned *major, unsigned *minor, unsigned *patch)
{
    SYMVIRT_FIND_(symvirt_version);
    return symvirt_version_entry.found ? symvirt_version_entry.call(major, minor, patch)
                                       : SYMVIRT_ABSENT;
}

/* Fills `state`, whose size the caller has set. Takes a moment (it asks UCX and the agent). */
static inline int symvirt_get_state(struct symvirt_state *state)
{
    SYMVIRT_FIND_(symvirt_get_state);
    return symvirt_get_state_entry.found ? symvirt_get_state_entry.call(state) : SYMVIRT_ABSENT;
}

/* Begins a region in which this process is not quiesced; `region` names it to the operator. Nests,
 * per process: any thread may begin and end one.
 *
 * A switch waits up to 10 s (SYMVIRT_HOLD_LIMIT, in seconds) for the last region to end, while the
 * job runs on, and is then abandoned by name. Once this rank has voted for a switch, a new region
 * waits for the switch to end; after 2 s it vetoes it. */
static inline int symvirt_hold(const char *region)
{
    SYMVIRT_FIND_(symvirt_hold);
    return symvirt_hold_entry.found ? symvirt_hold_entry.call(region) : SYMVIRT_ABSENT;
}

/* Ends the region that was begun last. */
static inline int symvirt_allow(void)
{
    SYMVIRT_FIND_(symvirt_allow);
    return symvirt_allow_entry.found ? symvirt_allow_entry.call() : SYMVIRT_ABSENT;
}

/* Adds a participant; the struct and its name are copied. They are asked in the order of their
 * addition, released and aborted in the opposite one. A switch under way is abandoned. */
static inline int symvirt_add(const struct symvirt_participant *participant)
{
    SYMVIRT_FIND_(symvirt_add);
    return symvirt_add_entry.found ? symvirt_add_entry.call(participant) : SYMVIRT_ABSENT;
}

/* Removes the participant of this name and context: none of its callbacks runs or will run when
 * this returns. A switch under way is abandoned, or waited for. */
static inline int symvirt_remove(const char *name, void *context)
{
    SYMVIRT_FIND_(symvirt_remove);
    return symvirt_remove_entry.found ? symvirt_remove_entry.call(name, context) : SYMVIRT_ABSENT;
}

#undef SYMVIRT_FIND_

#endif

#ifdef __cplusplus
}
#endif

#endif
