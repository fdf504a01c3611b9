/* Promise: a key to memory that its owner has released can still be destroyed, however often the
 * transport changed in between: nobody is told when it happens. Two processes without MPI.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES (UCP_FEATURE_TAG | UCP_FEATURE_RMA)
#include "pair.h"

enum { ROOM = 4096 };

static char memory[ROOM], in[ROOM];

static ucp_rkey_h exchange(ucp_mem_h mapped, uint64_t *address)
{
    void *packed, *of_peer;
    size_t mine, other;
    ucp_rkey_h rkey;
    uint64_t own = (uint64_t)memory;
    up_expect(ucp_rkey_pack(up.context, mapped, &packed, &mine), "ucp_rkey_pack");
    up_write(&own, sizeof own);
    up_write(&mine, sizeof mine);
    up_write(packed, mine);
    ucp_rkey_buffer_release(packed);
    up_read(address, sizeof *address);
    up_read(&other, sizeof other);
    of_peer = vf_alloc(other);
    up_read(of_peer, other);
    up_expect(ucp_ep_rkey_unpack(up.ep, of_peer, &rkey), "ucp_ep_rkey_unpack");
    free(of_peer);
    return rkey;
}

int main(int argc, char **argv)
{
    ucp_request_param_t none = {0};
    up_start("orphan_key", 0, 0, NULL, argc, argv);
    while (up_more()) {
        ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                     UCP_MEM_MAP_PARAM_FIELD_LENGTH,
                                       .address = memory, .length = ROOM};
        ucp_mem_h mapped;
        uint64_t address;
        up_expect(ucp_mem_map(up.context, &params, &mapped), "ucp_mem_map");
        vf_fill(memory, ROOM, up.me, 1, (uint64_t)vf.round);
        ucp_rkey_h rkey = exchange(mapped, &address);
        up_meet();
        up_finish(ucp_get_nbx(up.ep, in, ROOM, address, rkey, &none), "ucp_get_nbx");
        vf_check(in, ROOM, up.peer, 1, (uint64_t)vf.round);
        up_meet();
        up_expect(ucp_mem_unmap(up.context, mapped), "ucp_mem_unmap");
        double until = vf_now() + 0.2;
        while (vf_now() < until) {
            ucp_worker_progress(up.worker);
        }
        ucp_rkey_destroy(rkey);
    }
    return up_end();
}
