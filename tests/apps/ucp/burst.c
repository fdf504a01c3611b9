/* Promise: implicit puts that wait behind messages in a full queue are complete once a later flush
 * is, whatever happened in between, and nothing of them comes late.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES (UCP_FEATURE_TAG | UCP_FEATURE_RMA)
#include "pair.h"

enum { BLOCK = 4096, SENT = 1000, BLOCKS = 3000 };

static ucs_status_ptr_t sends[SENT];
static char *memory, *out;
static uint64_t address; /* the peer's */
static ucp_rkey_h key;

static ucp_mem_h expose(void)
{
    ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                 UCP_MEM_MAP_PARAM_FIELD_LENGTH,
                                   .address = memory,
                                   .length = (size_t)BLOCK * BLOCKS};
    ucp_mem_h memh;
    void *packed;
    size_t mine, other;
    up_expect(ucp_mem_map(up.context, &params, &memh), "ucp_mem_map");
    address = (uint64_t)memory;
    up_expect(ucp_rkey_pack(up.context, memh, &packed, &mine), "ucp_rkey_pack");
    up_write(&address, sizeof address);
    up_write(&mine, sizeof mine);
    up_write(packed, mine);
    up_read(&address, sizeof address);
    up_read(&other, sizeof other);
    ucp_rkey_buffer_release(packed);
    packed = vf_alloc(other);
    up_read(packed, other);
    up_expect(ucp_ep_rkey_unpack(up.ep, packed, &key), "ucp_ep_rkey_unpack");
    free(packed);
    return memh;
}

/* The peer does not look: messages fill the queue to it, and what follows waits behind them. */
static void burst(void)
{
    ucp_request_param_t none = {0};
    for (size_t i = 0; i < BLOCKS; i++) {
        char *from = out + i * BLOCK;
        vf_fill(from, BLOCK, up.me, (int)i, (uint64_t)vf.round);
        if (i < SENT) {
            sends[i] = ucp_tag_send_nbx(up.ep, from, BLOCK, i, &none);
            VF_REQUIRE(!UCS_PTR_IS_ERR(sends[i]), "ucp_tag_send_nbx: %s",
                       ucs_status_string(UCS_PTR_STATUS(sends[i])));
        } else {
            ucs_status_t status = ucp_put_nbi(up.ep, from, BLOCK, address + i * BLOCK, key);
            VF_REQUIRE(status == UCS_OK || status == UCS_INPROGRESS, "ucp_put_nbi: %s",
                       ucs_status_string(status));
        }
    }
}

static void finish(void)
{
    ucp_request_param_t none = {0};
    for (size_t i = 0; i < SENT; i++) {
        ucs_status_ptr_t got =
            ucp_tag_recv_nbx(up.worker, memory + i * BLOCK, BLOCK, i, (ucp_tag_t)-1, &none);
        up_expect(up_finish(got, "ucp_tag_recv_nbx"), "ucp_tag_recv_nbx");
    }
    for (size_t i = 0; i < SENT; i++) {
        up_expect(up_finish(sends[i], "ucp_tag_send_nbx"), "ucp_tag_send_nbx");
    }
    up_expect(ucp_ep_flush(up.ep), "ucp_ep_flush");
}

/* Time for a switch, in which nobody progresses the worker. */
static void compute(void)
{
    for (double end = vf_now() + 0.03; vf_now() < end;) {
    }
}

int main(int argc, char **argv)
{
    up_start("burst", 0, 0, NULL, argc, argv);
    memory = vf_alloc((size_t)BLOCK * BLOCKS);
    out = vf_alloc((size_t)BLOCK * BLOCKS);
    ucp_mem_h memh = expose();
    while (up_more()) {
        burst();
        compute();
        finish();
        up_meet();
        for (size_t i = 0; i < BLOCKS; i++) {
            vf_check(memory + i * BLOCK, BLOCK, up.peer, (int)i, (uint64_t)vf.round);
        }
        up_meet();
    }
    up_meet();
    ucp_rkey_destroy(key);
    up_expect(ucp_mem_unmap(up.context, memh), "ucp_mem_unmap");
    int ended = up_end();
    free(memory);
    free(out);
    return ended;
}
