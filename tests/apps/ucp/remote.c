/* Promise: remote memory is accessed rightly in every form: put and get blocking, implicit, nb and
 * nbx, atomics posted, fetching and blocking, of 4 and 8 bytes, in memory of UCX and of the
 * program's own, with keys of now and with keys that were packed long ago; a word that two processes
 * add to at once loses nothing.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES (UCP_FEATURE_TAG | UCP_FEATURE_RMA | UCP_FEATURE_AMO32 | UCP_FEATURE_AMO64)
#include "pair.h"

enum { LONGEST = 200 * 1024, ROOM = LONGEST + 64, PLACES = 2 };

struct place {
    ucp_mem_h memh;
    char *memory;
    uint64_t address; /* the peer's */
    char *packed;     /* the key to it, as the peer packed it */
    ucp_rkey_h rkey;
};
static struct place places[PLACES];
static char *out, *in;

enum { COMMON = LONGEST + 16, TURNS = 32 };
static uint64_t added; /* to each of the peer's common words, and to each of our own */

static void sent(void *request, ucs_status_t status)
{
    (void)request;
    up_expect(status, "completion");
}

static void open_place(struct place *place, int by_ucx)
{
    ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                 UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                 UCP_MEM_MAP_PARAM_FIELD_FLAGS,
                                   .address = by_ucx ? NULL : vf_alloc(ROOM),
                                   .length = ROOM,
                                   .flags = by_ucx ? UCP_MEM_MAP_ALLOCATE : 0};
    up_expect(ucp_mem_map(up.context, &params, &place->memh), "ucp_mem_map");
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS | UCP_MEM_ATTR_FIELD_LENGTH};
    up_expect(ucp_mem_query(place->memh, &attr), "ucp_mem_query");
    VF_REQUIRE(attr.address && attr.length >= ROOM && (by_ucx || attr.address == params.address),
               "ucp_mem_query: %zu bytes at %p", attr.length, attr.address);
    place->memory = attr.address;
    memset(place->memory, 0, ROOM);
    void *packed;
    size_t mine, other;
    uint64_t address = (uint64_t)place->memory;
    up_expect(ucp_rkey_pack(up.context, place->memh, &packed, &mine), "ucp_rkey_pack");
    up_write(&address, sizeof address);
    up_write(&mine, sizeof mine);
    up_write(packed, mine);
    up_read(&place->address, sizeof place->address);
    up_read(&other, sizeof other);
    place->packed = vf_alloc(other);
    up_read(place->packed, other);
    ucp_rkey_buffer_release(packed);
    up_expect(ucp_ep_rkey_unpack(up.ep, place->packed, &place->rkey), "ucp_ep_rkey_unpack");
}

static void close_place(struct place *place, int by_ucx)
{
    char *memory = place->memory;
    ucp_rkey_destroy(place->rkey);
    up_expect(ucp_mem_unmap(up.context, place->memh), "ucp_mem_unmap");
    free(place->packed);
    if (!by_ucx) {
        free(memory);
    }
}

static void finish(ucs_status_ptr_t started, const char *call)
{
    up_expect(up_finish(started, call), call);
}

static void implicit(ucs_status_t started, const char *call)
{
    ucp_request_param_t none = {0};
    VF_REQUIRE(started == UCS_OK || started == UCS_INPROGRESS, "%s: %s", call,
               ucs_status_string(started));
    finish(ucp_ep_flush_nbx(up.ep, &none), "ucp_ep_flush_nbx");
}

static void transfer(struct place *place, int form, size_t length)
{
    ucp_request_param_t none = {0};
    uint64_t to = place->address;
    vf_fill(out, length, up.me, form, (uint64_t)vf.round);
    switch (form) {
    case 0:
        up_expect(ucp_put(up.ep, out, length, to, place->rkey), "ucp_put");
        up_expect(ucp_ep_flush(up.ep), "ucp_ep_flush");
        memset(in, 0, length);
        up_expect(ucp_get(up.ep, in, length, to, place->rkey), "ucp_get");
        break;
    case 1:
        implicit(ucp_put_nbi(up.ep, out, length, to, place->rkey), "ucp_put_nbi");
        implicit(ucp_get_nbi(up.ep, in, length, to, place->rkey), "ucp_get_nbi");
        break;
    case 2:
        finish(ucp_put_nb(up.ep, out, length, to, place->rkey, sent), "ucp_put_nb");
        up_expect(ucp_worker_flush(up.worker), "ucp_worker_flush");
        finish(ucp_get_nb(up.ep, in, length, to, place->rkey, sent), "ucp_get_nb");
        break;
    default:
        finish(ucp_put_nbx(up.ep, out, length, to, place->rkey, &none), "ucp_put_nbx");
        up_expect(ucp_worker_fence(up.worker), "ucp_worker_fence");
        finish(ucp_get_nbx(up.ep, in, length, to, place->rkey, &none), "ucp_get_nbx");
    }
    vf_check(in, length, up.me, form, (uint64_t)vf.round);
}

/* The peer's last eight bytes are ours alone. */
static void count(struct place *place, uint64_t round)
{
    uint64_t to = place->address + LONGEST, old = 0, swap = round * 10 + 3;
    uint32_t old32 = 0;
    implicit(ucp_put_nbi(up.ep, &round, sizeof round, to, place->rkey), "ucp_put_nbi");
    implicit(ucp_atomic_post(up.ep, UCP_ATOMIC_POST_OP_ADD, 5, 8, to, place->rkey),
             "ucp_atomic_post");
    finish(ucp_atomic_fetch_nb(up.ep, UCP_ATOMIC_FETCH_OP_FADD, 7, &old, 8, to, place->rkey, sent),
           "ucp_atomic_fetch_nb");
    VF_REQUIRE(old == round + 5, "fetch and add found %llu", (unsigned long long)old);
    up_expect(ucp_atomic_fadd64(up.ep, 1, to, place->rkey, &old), "ucp_atomic_fadd64");
    VF_REQUIRE(old == round + 12, "fadd64 found %llu", (unsigned long long)old);
    up_expect(ucp_atomic_cswap64(up.ep, round + 13, swap, to, place->rkey, &old),
              "ucp_atomic_cswap64");
    VF_REQUIRE(old == round + 13, "cswap64 found %llu", (unsigned long long)old);
    up_expect(ucp_atomic_add32(up.ep, 2, to, place->rkey), "ucp_atomic_add32");
    up_expect(ucp_ep_flush(up.ep), "ucp_ep_flush");
    up_expect(ucp_atomic_swap32(up.ep, 77, to, place->rkey, &old32), "ucp_atomic_swap32");
    VF_REQUIRE(old32 == (uint32_t)swap + 2, "swap32 found %u", old32);
    uint64_t mask = 0xf0, reply = 0;
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_REPLY_BUFFER |
                                                 UCP_OP_ATTR_FIELD_DATATYPE,
                                 .datatype = ucp_dt_make_contig(8),
                                 .reply_buffer = &reply};
    finish(ucp_atomic_op_nbx(up.ep, UCP_ATOMIC_OP_XOR, &mask, 1, to, place->rkey, &param),
           "ucp_atomic_op_nbx");
    VF_REQUIRE((uint32_t)reply == 77, "xor found %llu", (unsigned long long)reply);
}

static uint64_t *common(struct place *place)
{
    return (uint64_t *)(place->memory + COMMON);
}

/* Both processes add to the word of each, at once. */
static void contend(struct place *place)
{
    for (int i = 0; i < TURNS; i++) {
        implicit(ucp_atomic_post(up.ep, UCP_ATOMIC_POST_OP_ADD, 1, 8, place->address + COMMON,
                                 place->rkey),
                 "ucp_atomic_post");
        __atomic_fetch_add(common(place), 1, __ATOMIC_SEQ_CST);
    }
}

static void check_common(struct place *place, uint64_t by_peer)
{
    uint64_t sum = added + by_peer, found = __atomic_load_n(common(place), __ATOMIC_SEQ_CST);
    VF_REQUIRE(found == sum, "%llu of %llu additions to a common word were lost",
               (unsigned long long)(sum - found), (unsigned long long)sum);
}

int main(int argc, char **argv)
{
    up_start("remote", 0, 0, NULL, argc, argv);
    out = vf_alloc(LONGEST);
    in = vf_alloc(LONGEST);
    for (int i = 0; i < PLACES; i++) {
        open_place(&places[i], i);
    }
    while (up_more()) {
        for (int i = 0; i < PLACES; i++) {
            struct place *place = &places[i];
            uint64_t hash = vf_hash((uint64_t)up.me, (uint64_t)vf.round, (uint64_t)i);
            size_t length = hash % 4 == 0 ? hash / 4 % LONGEST : hash / 4 % 500 + 1;
            transfer(place, (int)(vf.round % 4), length);
            count(place, (uint64_t)vf.round);
            contend(place);
            if (vf.round % 64 == 0) { /* a key may be unpacked again, whenever it was packed */
                ucp_rkey_destroy(place->rkey);
                up_expect(ucp_ep_rkey_unpack(up.ep, place->packed, &place->rkey),
                          "ucp_ep_rkey_unpack");
            }
        }
        added += TURNS;
    }
    up_meet();
    uint64_t by_peer;
    up_write(&added, sizeof added);
    up_read(&by_peer, sizeof by_peer);
    for (int i = 0; i < PLACES; i++) {
        check_common(&places[i], by_peer);
    }
    up_meet();
    for (int i = 0; i < PLACES; i++) {
        close_place(&places[i], i);
    }
    return up_end();
}
