/* Promise: a job that registers and releases memory all the time is switched as any other, and keys
 * to memory of a moment ago lead to it: put to and got from, by keys unpacked at once or a moment
 * later, while more is registered. What Open MPI 4.1 does with some dynamic windows does no harm:
 * no memory is released, and some is never. (UCX by itself aborts.) Two processes without MPI.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES (UCP_FEATURE_TAG | UCP_FEATURE_RMA)
#include "pair.h"

enum { ROOM = 30000, HELD = 4 };

struct place {
    ucp_mem_h memh;
    char *memory;
    int by_ucx;
    uint64_t address; /* the peer's */
    ucp_rkey_h rkey;
    char *packed;
};

static void open_place(struct place *place, int by_ucx)
{
    ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                 UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                 UCP_MEM_MAP_PARAM_FIELD_FLAGS,
                                   .address = by_ucx ? NULL : vf_alloc(ROOM), .length = ROOM,
                                   .flags = by_ucx ? UCP_MEM_MAP_ALLOCATE : 0};
    up_expect(ucp_mem_map(up.context, &params, &place->memh), "ucp_mem_map");
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};
    up_expect(ucp_mem_query(place->memh, &attr), "ucp_mem_query");
    place->memory = attr.address;
    place->by_ucx = by_ucx;
    void *packed;
    size_t mine, other;
    uint64_t own = (uint64_t)place->memory;
    up_expect(ucp_rkey_pack(up.context, place->memh, &packed, &mine), "ucp_rkey_pack");
    up_write(&own, sizeof own);
    up_write(&mine, sizeof mine);
    up_write(packed, mine);
    ucp_rkey_buffer_release(packed);
    up_read(&place->address, sizeof place->address);
    up_read(&other, sizeof other);
    place->packed = vf_alloc(other);
    up_read(place->packed, other);
}

static void unpack(struct place *place)
{
    up_expect(ucp_ep_rkey_unpack(up.ep, place->packed, &place->rkey), "ucp_ep_rkey_unpack");
}

static void use(const struct place *place, uint64_t number)
{
    static char out[ROOM], in[ROOM];
    ucp_request_param_t none = {0};
    vf_fill(out, ROOM, up.me, 1, number);
    up_expect(up_finish(ucp_put_nbx(up.ep, out, ROOM, place->address, place->rkey, &none), "put"),
              "put");
    up_expect(up_finish(ucp_ep_flush_nbx(up.ep, &none), "flush"), "flush");
    up_expect(up_finish(ucp_get_nbx(up.ep, in, ROOM, place->address, place->rkey, &none), "get"),
              "get");
    vf_check(in, ROOM, up.me, 1, number);
}

static void close_place(struct place *place)
{
    char *memory = place->memory;
    ucp_rkey_destroy(place->rkey);
    free(place->packed);
    up_expect(ucp_mem_unmap(up.context, place->memh), "ucp_mem_unmap");
    if (!place->by_ucx) {
        free(memory);
    }
}

int main(int argc, char **argv)
{
    static struct place places[HELD];
    up_start("mapped", 0, 0, NULL, argc, argv);
    while (up_more()) {
        struct place *place = &places[vf.round % HELD];
        struct place *last = &places[(vf.round + HELD - 1) % HELD];
        if (vf.round > HELD) {
            close_place(place);
        }
        open_place(place, vf.round % 2);
        /* Every third is unpacked a round later. */
        if (vf.round % 3 != 0) {
            unpack(place);
        }
        if (vf.round > 1 && (vf.round - 1) % 3 == 0) {
            unpack(last);
        }
        if (vf.round > 1) {
            use(last, (uint64_t)vf.round);
        }
        up_meet();
        if (vf.round > 1) {
            vf_check(last->memory, ROOM, up.peer, 1, (uint64_t)vf.round);
        }
    }
    for (long round = vf.round - HELD + 1; round <= vf.round; round++) {
        if (round == vf.round && round % 3 == 0) {
            unpack(&places[round % HELD]);
        }
        close_place(&places[round % HELD]);
    }
    struct place left;
    open_place(&left, 0);
    free(left.packed);
    VF_REQUIRE(ucp_mem_unmap(up.context, NULL) == UCS_ERR_INVALID_PARAM, "no memory was released");
    return up_end();
}
