/* Promise: derived datatypes with different layouts on the two sides (vector, indexed, struct,
 * contiguous) arrive element by element, and the gaps between elements are not written. UCX sees
 * generic datatypes, so drained messages must be unpacked by the receiver's own layout.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { BLOCKS = 400, PER_BLOCK = 6, ELEMENTS = BLOCKS * PER_BLOCK, LAYOUTS = 4, WINDOW = 12 };
enum { SPAN = BLOCKS * 16, HOLE = 0x5a5a5a5a };

/* Place, in ints, of element `k` of one block row in each layout. */
static size_t place(int layout, int k)
{
    size_t block = (size_t)(k / PER_BLOCK), inner = (size_t)(k % PER_BLOCK);
    switch (layout) {
    case 0: /* contiguous */
        return (size_t)k;
    case 1: /* vector: 6 of every 10 */
        return block * 10 + inner;
    case 2: /* indexed: 2 + 4 of every 11, the second part first in the signature */
        return block * 11 + (inner < 4 ? inner + 7 : inner - 4 + 2);
    default: /* struct of 1, 2 and 3 ints with holes, 12 long */
        return block * 12 + (inner < 1 ? 0 : inner < 3 ? inner + 2 : inner + 5);
    }
}

static MPI_Datatype make(int layout)
{
    MPI_Datatype type, inner;
    static int lengths[2 * BLOCKS], displacements[2 * BLOCKS];
    int struct_lengths[3] = {1, 2, 3};
    MPI_Aint struct_places[3] = {0, 3 * sizeof(int), 8 * sizeof(int)};
    MPI_Datatype struct_types[3] = {MPI_INT, MPI_INT, MPI_INT};
    switch (layout) {
    case 0:
        MPI_Type_contiguous(ELEMENTS, MPI_INT, &type);
        break;
    case 1:
        MPI_Type_vector(BLOCKS, PER_BLOCK, 10, MPI_INT, &type);
        break;
    case 2:
        for (int i = 0; i < BLOCKS; i++) {
            lengths[2 * i] = 4;
            displacements[2 * i] = i * 11 + 7;
            lengths[2 * i + 1] = 2;
            displacements[2 * i + 1] = i * 11 + 2;
        }
        MPI_Type_indexed(2 * BLOCKS, lengths, displacements, MPI_INT, &type);
        break;
    default:
        MPI_Type_create_struct(3, struct_lengths, struct_places, struct_types, &inner);
        MPI_Type_create_resized(inner, 0, 12 * sizeof(int), &type);
        MPI_Type_free(&inner);
        MPI_Type_contiguous(BLOCKS, type, &inner);
        MPI_Type_free(&type);
        type = inner;
    }
    MPI_Type_commit(&type);
    return type;
}

static int value(int source, int slot, int k)
{
    return (int)vf_hash((uint64_t)source, (uint64_t)(vf.round * WINDOW + slot), (uint64_t)k);
}

static void verify(int *memory, int layout, int source, int slot)
{
    for (int k = 0; k < ELEMENTS; k++) {
        int *element = &memory[place(layout, k)];
        VF_REQUIRE(*element == value(source, slot, k),
                   "layout %d element %d from %d is %08x, expected %08x", layout, k, source,
                   (unsigned)*element, (unsigned)value(source, slot, k));
        *element = HOLE;
    }
    for (int i = 0; i < SPAN; i++) {
        VF_REQUIRE(memory[i] == HOLE, "layout %d: the gap at int %d was written: %08x", layout, i,
                   (unsigned)memory[i]);
    }
    vf_count(ELEMENTS * sizeof(int));
}

int main(int argc, char **argv)
{
    vf_start("strided", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    int *incoming = vf_alloc(sizeof(int) * SPAN * WINDOW);
    int *outgoing = vf_alloc(sizeof(int) * SPAN * WINDOW);
    MPI_Datatype types[LAYOUTS];
    MPI_Request requests[2 * WINDOW];
    for (int layout = 0; layout < LAYOUTS; layout++) {
        types[layout] = make(layout);
    }
    for (int i = 0; i < SPAN * WINDOW; i++) {
        incoming[i] = HOLE;
    }
    while (vf_more()) {
        int late = (vf.rank + vf.round) % 3 == 0;
        for (int pass = 0; pass < 2; pass++) {
            for (int slot = 0; slot < WINDOW; slot++) {
                int layout = (int)(vf.round + slot) % LAYOUTS;
                if (pass == late) {
                    MPI_Irecv(incoming + slot * SPAN, 1, types[layout], left, slot,
                              MPI_COMM_WORLD, &requests[slot]);
                    continue;
                }
                /* The sender's layout is another one than the receiver's, except one time in 4. */
                int other = (layout + slot / LAYOUTS + 1) % LAYOUTS;
                for (int k = 0; k < ELEMENTS; k++) {
                    outgoing[(size_t)slot * SPAN + place(other, k)] = value(vf.rank, slot, k);
                }
                MPI_Isend(outgoing + slot * SPAN, 1, types[other], right, slot, MPI_COMM_WORLD,
                          &requests[WINDOW + slot]);
            }
        }
        MPI_Waitall(2 * WINDOW, requests, MPI_STATUSES_IGNORE);
        for (int slot = 0; slot < WINDOW; slot++) {
            verify(incoming + slot * SPAN, (int)(vf.round + slot) % LAYOUTS, left, slot);
        }
    }
    for (int layout = 0; layout < LAYOUTS; layout++) {
        MPI_Type_free(&types[layout]);
    }
    return vf_finish();
}
