/* Promise: what is done to a window under an exclusive lock is done one after the other, by one
 * rank at a time: a put that is flushed is what the next get and accumulate find.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <string.h>

enum { MOST = 9 };

static void check(const short *got, int count, int expected_at(int), const char *what)
{
    for (int i = 0; i < count; i++) {
        VF_REQUIRE(got[i] == expected_at(i), "%s element %d of %d is %d, expected %d", what, i,
                   count, got[i], expected_at(i));
    }
    VF_REQUIRE(got[count] == -1, "%s wrote beyond its %d elements", what, count);
}

static int one(int i)
{
    return i * 0 + 1;
}

static int index_of(int i)
{
    return i;
}

static int zero_or_one(int i)
{
    return i < 1 ? i : 1;
}

static void one_turn(MPI_Win window, int target, int count, MPI_Op op, int result(int))
{
    short ones[MOST], mine[MOST], before[MOST + 1], after[MOST + 1];
    for (int i = 0; i <= MOST; i++) {
        before[i] = after[i] = -1;
    }
    for (int i = 0; i < count; i++) {
        ones[i] = 1;
        mine[i] = (short)i;
    }
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, target, 0, window);
    MPI_Put(ones, count, MPI_SHORT, target, 0, count, MPI_SHORT, window);
    MPI_Win_flush(target, window);
    MPI_Get_accumulate(mine, count, MPI_SHORT, before, count, MPI_SHORT, target, 0, count,
                       MPI_SHORT, op, window);
    MPI_Win_flush(target, window);
    MPI_Get(after, count, MPI_SHORT, target, 0, count, MPI_SHORT, window);
    MPI_Win_flush(target, window);
    MPI_Win_unlock(target, window);
    check(before, count, one, "before");
    check(after, count, result, "after");
    vf_count(3 * (size_t)count * sizeof *ones);
}

static void round_of_turns(MPI_Win window)
{
    for (int count = 1; count <= MOST; count++) {
        for (int target = 0; target < vf.ranks; target++) {
            one_turn(window, target, count, MPI_REPLACE, index_of);
            one_turn(window, target, count, MPI_MIN, zero_or_one);
            one_turn(window, target, count, MPI_NO_OP, one);
        }
    }
}

/* Each round has a window of its own, so that a switch also meets its first operations. */
int main(int argc, char **argv)
{
    vf_start("exclusive", &argc, &argv, MPI_THREAD_SINGLE);
    while (vf_more()) {
        short *memory;
        MPI_Win window;
        MPI_Alloc_mem(MOST * sizeof *memory, MPI_INFO_NULL, &memory);
        memset(memory, 0, MOST * sizeof *memory);
        MPI_Win_create(memory, MOST * sizeof *memory, sizeof *memory, MPI_INFO_NULL,
                       MPI_COMM_WORLD, &window);
        round_of_turns(window);
        MPI_Win_free(&window);
        MPI_Free_mem(memory);
    }
    return vf_finish();
}
