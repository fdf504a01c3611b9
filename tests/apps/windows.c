/* Promise: one-sided communication computes what it should, whatever the window was made by
 * (allocate, create, dynamic), whatever completes it (fence, post-start-complete-wait, lock,
 * lock-all with flush, requests), put, get, accumulate, fetch-and-op and compare-and-swap.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { ELEMENTS = 3000, SUM = ELEMENTS, TICKET, OWNER, LAST };

struct place {
    MPI_Win window;
    long *memory;       /* mine, LAST elements */
    MPI_Aint *bases;    /* dynamic: where each rank's memory is; otherwise zeros */
    int unit;           /* bytes of displacement to an element: 1 for dynamic windows */
    const char *name;
    long expected_sum;  /* of all ranks, at rank 0 */
    long tickets;
};
static int left, right;
static long *out, *in;

static long value(int rank, long round, int i)
{
    return (long)(vf_hash((uint64_t)rank, (uint64_t)round, (uint64_t)i) >> 8);
}

static MPI_Aint at(const struct place *place, int rank, int element)
{
    return place->bases[rank] + (MPI_Aint)element * (place->unit == 1 ? (int)sizeof(long) : 1);
}

static void fill(int salt)
{
    for (int i = 0; i < ELEMENTS; i++) {
        out[i] = value(vf.rank, vf.round * 8 + salt, i);
    }
}

static void expect(const long *found, int rank, int salt, const char *what, const char *name)
{
    for (int i = 0; i < ELEMENTS; i++) {
        VF_REQUIRE(found[i] == value(rank, vf.round * 8 + salt, i),
                   "%s, window by %s: element %d of round %ld is %lx, expected %lx", what, name, i,
                   vf.round, found[i], value(rank, vf.round * 8 + salt, i));
    }
    vf_count(ELEMENTS * sizeof *found);
}

static void by_fence(struct place *p)
{
    fill(0);
    MPI_Win_fence(0, p->window);
    MPI_Put(out, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window);
    MPI_Win_fence(0, p->window);
    expect(p->memory, left, 0, "put and fence", p->name);
    MPI_Win_fence(0, p->window);
    MPI_Get(in, ELEMENTS, MPI_LONG, left, at(p, left, 0), ELEMENTS, MPI_LONG, p->window);
    MPI_Win_fence(0, p->window);
    expect(in, (left + vf.ranks - 1) % vf.ranks, 0, "get and fence", p->name);
    MPI_Win_fence(MPI_MODE_NOSUCCEED, p->window);
}

static void by_post_and_start(struct place *p)
{
    MPI_Group all, from, to;
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Group_incl(all, 1, &left, &from);
    MPI_Group_incl(all, 1, &right, &to);
    fill(1);
    MPI_Win_post(from, 0, p->window);
    MPI_Win_start(to, 0, p->window);
    MPI_Put(out, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window);
    MPI_Win_complete(p->window);
    MPI_Win_wait(p->window);
    expect(p->memory, left, 1, "put, post and start", p->name);
    MPI_Group_free(&all);
    MPI_Group_free(&from);
    MPI_Group_free(&to);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void by_lock(struct place *p)
{
    fill(2);
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, right, 0, p->window);
    MPI_Put(out, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window);
    MPI_Win_unlock(right, p->window);
    MPI_Win_lock(MPI_LOCK_SHARED, right, 0, p->window);
    MPI_Get(in, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window);
    MPI_Win_unlock(right, p->window);
    expect(in, vf.rank, 2, "put and get under a lock", p->name);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* With requests, but for dynamic windows: there Open MPI 4.1 looks for the window's own state
 * among the attached memory, does not find it, and unpacks whatever it meets. */
static void put_and_get(struct place *p)
{
    MPI_Request request;
    if (p->unit == 1) {
        MPI_Put(out, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window);
        MPI_Win_flush(right, p->window);
        MPI_Get(in, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window);
        MPI_Win_flush_local(right, p->window);
        return;
    }
    MPI_Rput(out, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window,
             &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    MPI_Win_flush(right, p->window);
    MPI_Rget(in, ELEMENTS, MPI_LONG, right, at(p, right, 0), ELEMENTS, MPI_LONG, p->window,
             &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
}

static void by_flush(struct place *p)
{
    long one = 1, old, mine = vf.rank + 1;
    fill(3);
    MPI_Win_lock_all(0, p->window);
    put_and_get(p);
    expect(in, vf.rank, 3, "put, flush and get under lock-all", p->name);
    MPI_Accumulate(&mine, 1, MPI_LONG, 0, at(p, 0, SUM), 1, MPI_LONG, MPI_SUM, p->window);
    MPI_Fetch_and_op(&one, &old, MPI_LONG, 0, at(p, 0, TICKET), MPI_SUM, p->window);
    MPI_Win_flush_all(p->window);
    VF_REQUIRE(old >= p->tickets && old < p->tickets + vf.ranks,
               "fetch-and-op, window by %s: ticket %ld, expected %ld to %ld", p->name, old,
               p->tickets, p->tickets + vf.ranks - 1);
    for (long none = -1, taken = vf.rank;; old = none) {
        MPI_Compare_and_swap(&taken, &none, &old, MPI_LONG, 0, at(p, 0, OWNER), p->window);
        MPI_Win_flush(0, p->window);
        if (old == -1) {
            break;
        }
    }
    long free = -1;
    MPI_Fetch_and_op(&free, &old, MPI_LONG, 0, at(p, 0, OWNER), MPI_REPLACE, p->window);
    MPI_Win_flush(0, p->window);
    VF_REQUIRE(old == vf.rank, "compare-and-swap, window by %s: %ld holds what %d took", p->name,
               old, vf.rank);
    MPI_Win_unlock_all(p->window);
    p->tickets += vf.ranks;
    p->expected_sum += (long)vf.ranks * (vf.ranks + 1) / 2;
    MPI_Barrier(MPI_COMM_WORLD);
}

static void open_window(struct place *p, const char *name)
{
    const MPI_Aint bytes = LAST * sizeof(long);
    *p = (struct place){.name = name, .unit = sizeof(long)};
    p->bases = vf_alloc((size_t)vf.ranks * sizeof *p->bases);
    memset(p->bases, 0, (size_t)vf.ranks * sizeof *p->bases);
    if (strcmp(name, "allocate") == 0) {
        MPI_Win_allocate(bytes, sizeof(long), MPI_INFO_NULL, MPI_COMM_WORLD, &p->memory,
                         &p->window);
    } else if (strcmp(name, "create") == 0) {
        p->memory = vf_alloc((size_t)bytes);
        MPI_Win_create(p->memory, bytes, sizeof(long), MPI_INFO_NULL, MPI_COMM_WORLD, &p->window);
    } else {
        p->unit = 1;
        p->memory = vf_alloc((size_t)bytes);
        MPI_Win_create_dynamic(MPI_INFO_NULL, MPI_COMM_WORLD, &p->window);
        MPI_Win_attach(p->window, p->memory, bytes);
        MPI_Aint mine;
        MPI_Get_address(p->memory, &mine);
        MPI_Allgather(&mine, 1, MPI_AINT, p->bases, 1, MPI_AINT, MPI_COMM_WORLD);
    }
    p->memory[SUM] = p->memory[TICKET] = 0;
    p->memory[OWNER] = -1;
    MPI_Barrier(MPI_COMM_WORLD);
}

static void close_window(struct place *p)
{
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, vf.rank, 0, p->window);
    VF_REQUIRE(vf.rank != 0 || p->memory[SUM] == p->expected_sum,
               "accumulate, window by %s: the sum is %ld, expected %ld", p->name, p->memory[SUM],
               p->expected_sum);
    MPI_Win_unlock(vf.rank, p->window);
    int is_dynamic = p->unit == 1, is_mine = strcmp(p->name, "allocate") != 0;
    if (is_dynamic) {
        MPI_Win_detach(p->window, p->memory);
    }
    MPI_Win_free(&p->window);
    if (is_mine) {
        free(p->memory);
    }
    free(p->bases);
}

int main(int argc, char **argv)
{
    vf_start("windows", &argc, &argv, MPI_THREAD_SINGLE);
    static const char *const names[] = {"allocate", "create", "dynamic"};
    enum { PLACES = sizeof names / sizeof *names };
    struct place places[PLACES];
    left = (vf.rank + vf.ranks - 1) % vf.ranks;
    right = (vf.rank + 1) % vf.ranks;
    out = vf_alloc(ELEMENTS * sizeof *out);
    in = vf_alloc(ELEMENTS * sizeof *in);
    for (int i = 0; i < PLACES; i++) {
        open_window(&places[i], names[i]);
    }
    while (vf_more()) {
        struct place *p = &places[vf.round % PLACES];
        by_fence(p);
        by_post_and_start(p);
        by_lock(p);
        by_flush(p);
        if (vf.round % 1000 == 0) { /* a window does not have to last as long as the job */
            close_window(p);
            open_window(p, p->name);
        }
    }
    for (int i = 0; i < PLACES; i++) {
        close_window(&places[i]);
    }
    return vf_finish();
}
