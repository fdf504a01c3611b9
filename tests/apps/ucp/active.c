/* Promise: active messages arrive once, whole and in order, whatever becomes of the transport: by
 * handlers of the old and the new form, with and without header, eager and by rendezvous, fetched
 * in the handler, later, never, or kept; and whoever is asked for a reply can give one. Two
 * processes without MPI; with --alone 1 a process that talks to itself, with --only 1 in a context
 * that asks for nothing but active messages.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
static unsigned long features;
#define UP_FEATURES features
#define UP_AM_ALIGNMENT 64
#include "pair.h"

enum { OLD = 3, NEW = 7, KEPT = 8, REPLY = 9, LATE = 300, PER_ROUND = 24, LONGEST = 300 * 1024 };

/* What names a message: in the header of the new form, or first in the data of the old one. */
struct name {
    uint64_t sequence;
    uint32_t source, kind, id, header_length;
    uint64_t length, answers;
};

/* A message whose data is fetched or looked at after its handler. */
struct pending {
    struct name name;
    void *data;
    int fetch, rendezvous;
    struct pending *next;
};

static struct {
    uint64_t sent, expected, arrived, replies, wanted_replies;
    uint64_t fetched, kept, dropped;
    struct pending *first, **last;
    int fetching;
} at = {.last = &at.first};

static uint64_t length_of(uint64_t sequence)
{
    static const uint64_t lengths[] = {0, 8, 900, 6000, 8300, 40000, LONGEST};
    return lengths[vf_hash(sequence, 1, 7) % (sizeof lengths / sizeof *lengths)];
}

static void arrived(const struct name *name)
{
    VF_REQUIRE(name->source == (uint32_t)up.peer, "a message of process %u", name->source);
    at.arrived++;
}

/* --- fetching ------------------------------------------------------------------------------- */

struct fetch {
    struct pending *pending;
    char *buffer;
    ucp_dt_iov_t iov[2];
};

static void fetched(struct fetch *fetch, size_t length)
{
    struct name *name = &fetch->pending->name;
    VF_REQUIRE(length == name->length, "%zu bytes were fetched of %llu", length,
               (unsigned long long)name->length);
    vf_check(fetch->buffer, length, (int)name->source, (int)name->id, name->sequence);
    at.fetched++;
    at.fetching--;
    free(fetch->buffer);
    free(fetch->pending);
    free(fetch);
}

static void on_fetched(void *request, ucs_status_t status, size_t length, void *user_data)
{
    up_expect(status, "fetch");
    fetched(user_data, length);
    if (request != NULL) {
        ucp_request_free(request);
    }
}

static void fetch(struct pending *pending)
{
    struct fetch *fetch = vf_alloc(sizeof *fetch);
    size_t length = pending->name.length, received = 0;
    char *buffer = vf_alloc(length);
    *fetch = (struct fetch){pending, buffer,
                            {{buffer, length / 3}, {buffer + length / 3, length - length / 3}}};
    int scattered = length > 100 && pending->name.sequence % 3 == 0;
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FIELD_RECV_INFO,
                                 .cb.recv_am = on_fetched, .user_data = fetch,
                                 .recv_info.length = &received};
    if (scattered) {
        param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
        param.datatype = ucp_dt_make_iov();
    }
    /* UCX has it so, and MPICH 4.2 relies on it. */
    int never_at_once = pending->rendezvous && length > 0;
    at.fetching++;
    void *request = ucp_am_recv_data_nbx(up.worker, pending->data,
                                         scattered ? (void *)fetch->iov : buffer,
                                         scattered ? 2 : length, &param);
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "ucp_am_recv_data_nbx: %s",
               ucs_status_string(UCS_PTR_STATUS(request)));
    VF_REQUIRE(request != NULL || !never_at_once, "a rendezvous of %zu bytes completed at once",
               length);
    if (request == NULL) {
        fetched(fetch, received);
    }
}

static void remember(const struct name *name, void *data, int to_fetch, int rendezvous)
{
    struct pending *pending = vf_alloc(sizeof *pending);
    *pending = (struct pending){*name, data, to_fetch, rendezvous, NULL};
    *at.last = pending;
    at.last = &pending->next;
}

/* Fetches or looks at what waits; `all`, or what is not of the last round. */
static void settle(int all)
{
    while (at.first != NULL && (all || at.first->name.sequence + 2 * PER_ROUND < at.arrived)) {
        struct pending *pending = at.first;
        at.first = pending->next;
        if (at.first == NULL) {
            at.last = &at.first;
        }
        if (pending->fetch) {
            fetch(pending);
            continue;
        }
        struct name *name = &pending->name;
        vf_check(pending->data, name->length, (int)name->source, (int)name->id, name->sequence);
        ucp_am_data_release(up.worker, pending->data);
        at.kept++;
        free(pending);
    }
}

/* --- handlers ------------------------------------------------------------------------------- */

static uint64_t last_eager[2] = {UINT64_MAX, UINT64_MAX};

/* Eager messages of one sender do not overtake each other. */
static void in_order(const struct name *name, int which)
{
    VF_REQUIRE(last_eager[which] == UINT64_MAX || name->sequence > last_eager[which],
               "message %llu came after %llu", (unsigned long long)name->sequence,
               (unsigned long long)last_eager[which]);
    last_eager[which] = name->sequence;
}

static ucs_status_t on_old(void *arg, void *data, size_t length, ucp_ep_h reply_ep, unsigned flags)
{
    struct name name;
    (void)flags;
    VF_REQUIRE(arg == &at, "a handler got the argument %p", arg);
    VF_REQUIRE(reply_ep == NULL, "a reply endpoint nobody asked for");
    memcpy(&name, data, sizeof name);
    VF_REQUIRE(length == sizeof name + name.length, "length %zu", length);
    vf_check((char *)data + sizeof name, name.length, (int)name.source, (int)name.id, name.sequence);
    in_order(&name, 0);
    arrived(&name);
    return UCS_OK;
}

static void replied(void *request, ucs_status_t status, void *user_data)
{
    up_expect(status, "reply");
    free(user_data);
    if (request != NULL) {
        ucp_request_free(request);
    }
}

static void reply(ucp_ep_h ep, const struct name *name)
{
    struct name *answer = vf_alloc(sizeof *answer);
    *answer = (struct name){.source = (uint32_t)up.me, .answers = name->sequence, .id = REPLY};
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = replied, .user_data = answer};
    void *request = ucp_am_send_nbx(ep, REPLY, answer, sizeof *answer, NULL, 0, &param);
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "reply: %s", ucs_status_string(UCS_PTR_STATUS(request)));
    if (request == NULL) {
        free(answer);
    }
}

static ucs_status_t on_new(void *arg, const void *header, size_t header_length, void *data,
                           size_t length, const ucp_am_recv_param_t *param)
{
    struct name name;
    VF_REQUIRE(arg == &last_eager, "a handler got the argument %p", arg);
    VF_REQUIRE(header_length >= sizeof name, "a header of %zu bytes", header_length);
    memcpy(&name, header, sizeof name);
    VF_REQUIRE(header_length == name.header_length && length == name.length,
               "header %zu data %zu, expected %u and %llu", header_length, length,
               name.header_length, (unsigned long long)name.length);
    vf_check((const char *)header + sizeof name, header_length - sizeof name, (int)name.source,
             (int)name.id, name.sequence + 1);
    int wants_reply = (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0;
    VF_REQUIRE(wants_reply == (name.answers != 0), "a reply endpoint: %d", wants_reply);
    if (wants_reply) {
        reply(param->reply_ep, &name);
    }
    arrived(&name);
    if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) {
        switch (name.sequence % 4) {
        case 0: /* not wanted */
            at.dropped++;
            return UCS_OK;
        case 1: { /* at once */
            struct pending *pending = vf_alloc(sizeof *pending);
            *pending = (struct pending){name, data, 1, 1, NULL};
            fetch(pending);
            return UCS_OK;
        }
        default:
            remember(&name, data, 1, 1);
            return UCS_INPROGRESS;
        }
    }
    vf_check(data, length, (int)name.source, (int)name.id, name.sequence);
    in_order(&name, 1);
    return UCS_OK;
}

static ucs_status_t on_kept(void *arg, const void *header, size_t header_length, void *data,
                            size_t length, const ucp_am_recv_param_t *param)
{
    struct name name;
    (void)arg;
    VF_REQUIRE(header_length == sizeof name, "a header of %zu bytes", header_length);
    memcpy(&name, header, sizeof name);
    arrived(&name);
    if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) {
        remember(&name, data, 1, 1);
        return UCS_INPROGRESS;
    }
    VF_REQUIRE(param->recv_attr & UCP_AM_RECV_ATTR_FLAG_DATA,
               "data of a handler for persistent data cannot be kept");
    VF_REQUIRE((uintptr_t)data % UP_AM_ALIGNMENT == 0, "data at %p is not aligned", data);
    if (name.sequence % 5 == 0) {
        vf_check(data, length, (int)name.source, (int)name.id, name.sequence);
        return UCS_OK;
    }
    remember(&name, data, name.sequence % 2, 0);
    return UCS_INPROGRESS;
}

static ucs_status_t on_reply(void *arg, const void *header, size_t header_length, void *data,
                             size_t length, const ucp_am_recv_param_t *param)
{
    struct name name;
    (void)arg;
    (void)data;
    (void)param;
    VF_REQUIRE(header_length == sizeof name && length == 0, "a reply of %zu and %zu bytes",
               header_length, length);
    memcpy(&name, header, sizeof name);
    VF_REQUIRE(name.source == (uint32_t)up.peer, "a reply of process %u", name.source);
    at.replies++;
    return UCS_OK;
}

static void set_handler(unsigned id, ucp_am_recv_callback_t callback, void *arg, uint32_t flags)
{
    ucp_am_handler_param_t param = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                  UCP_AM_HANDLER_PARAM_FIELD_CB |
                                                  UCP_AM_HANDLER_PARAM_FIELD_ARG |
                                                  UCP_AM_HANDLER_PARAM_FIELD_FLAGS,
                                    .id = id, .cb = callback, .arg = arg, .flags = flags};
    up_expect(ucp_worker_set_am_recv_handler(up.worker, &param), "ucp_worker_set_am_recv_handler");
}

static void set_handlers(void)
{
    up_expect(ucp_worker_set_am_handler(up.worker, OLD, on_old, &at, UCP_AM_FLAG_WHOLE_MSG),
              "ucp_worker_set_am_handler");
    set_handler(NEW, on_new, &last_eager, 0);
    set_handler(KEPT, on_kept, NULL, UCP_AM_FLAG_PERSISTENT_DATA);
    set_handler(REPLY, on_reply, NULL, 0);
}

/* --- sending -------------------------------------------------------------------------------- */

struct sending {
    char *header, *data;
};
static int sending;
static size_t longest_header; /* that the worker promises, for good */

static void sent(void *request, ucs_status_t status, void *user_data)
{
    struct sending *send = user_data;
    up_expect(status, "send");
    free(send->header);
    free(send->data);
    free(send);
    sending--;
    if (request != NULL) {
        ucp_request_free(request);
    }
}

static void sent_old(void *request, ucs_status_t status)
{
    *(int *)request = 1;
    up_expect(status, "ucp_am_send_nb");
}

static void send_old(uint64_t sequence)
{
    struct name name = {.sequence = sequence, .source = (uint32_t)up.me, .id = OLD,
                        .length = length_of(sequence)};
    size_t whole = sizeof name + name.length;
    char *data = vf_alloc(whole);
    memcpy(data, &name, sizeof name);
    vf_fill(data + sizeof name, name.length, up.me, OLD, sequence);
    ucp_dt_iov_t iov[2] = {{data, sizeof name}, {data + sizeof name, name.length}};
    int scattered = sequence % 2;
    void *request = ucp_am_send_nb(up.ep, OLD, scattered ? (void *)iov : data, scattered ? 2 : whole,
                                   scattered ? ucp_dt_make_iov() : ucp_dt_make_contig(1), sent_old,
                                   0);
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "ucp_am_send_nb: %s",
               ucs_status_string(UCS_PTR_STATUS(request)));
    up_finish(request, "ucp_am_send_nb");
    free(data);
}

static void send_new(uint64_t sequence, unsigned id)
{
    const uint32_t headers[] = {0, 1, 40, (uint32_t)(longest_header - sizeof(struct name))};
    struct sending *send = vf_alloc(sizeof *send);
    struct name name = {.sequence = sequence, .source = (uint32_t)up.me, .id = id,
                        .length = length_of(sequence)};
    name.header_length = (uint32_t)sizeof name + (id == KEPT ? 0 : headers[sequence % 4]);
    name.answers = id == NEW && sequence % 7 == 0;
    *send = (struct sending){vf_alloc(name.header_length), vf_alloc(name.length)};
    memcpy(send->header, &name, sizeof name);
    vf_fill(send->header + sizeof name, name.header_length - sizeof name, up.me, (int)id,
            sequence + 1);
    vf_fill(send->data, name.length, up.me, (int)id, sequence);
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FIELD_FLAGS,
                                 .cb.send = sent, .user_data = send,
                                 .flags = name.answers ? UCP_AM_SEND_FLAG_REPLY : 0};
    /* Every way for every length, and the library's own choice. */
    switch (vf_hash(sequence, 2, 3) % 3) {
    case 0:
        param.flags |= UCP_AM_SEND_FLAG_EAGER;
        break;
    case 1:
        param.flags |= UCP_AM_SEND_FLAG_RNDV;
        break;
    default:
        break;
    }
    at.wanted_replies += name.answers;
    sending++;
    void *request = ucp_am_send_nbx(up.ep, id, send->header, name.header_length, send->data,
                                    name.length, &param);
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "ucp_am_send_nbx: %s",
               ucs_status_string(UCS_PTR_STATUS(request)));
    if (request == NULL) {
        sent(NULL, UCS_OK, send);
    }
}

/* A handler for an id that was not known before, while messages and switches go on. */
static ucs_status_t on_late(void *arg, const void *header, size_t header_length, void *data,
                            size_t length, const ucp_am_recv_param_t *param)
{
    (void)arg;
    (void)data;
    (void)length;
    (void)param;
    struct name name;
    VF_REQUIRE(header_length == sizeof name, "a header of %zu bytes", header_length);
    memcpy(&name, header, sizeof name);
    arrived(&name);
    return UCS_OK;
}

static void late(uint64_t sequence)
{
    static unsigned id = LATE;
    struct name name = {.sequence = sequence, .source = (uint32_t)up.me, .id = id};
    ucp_request_param_t none = {0};
    set_handler(id, on_late, NULL, 0);
    up_meet();
    up_finish(ucp_am_send_nbx(up.ep, id, &name, sizeof name, NULL, 0, &none), "late");
    up_meet();
    id += 5;
}

int main(int argc, char **argv)
{
    vf.argc = argc;
    vf.argv = argv;
    features = UCP_FEATURE_AM | (vf_option("--only", 0) > 0 ? 0 : UCP_FEATURE_TAG);
    up_start("active", vf_option("--alone", 0) > 0, sizeof(int), NULL, argc, argv);
    set_handlers();
    ucp_worker_attr_t attributes = {.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER};
    up_expect(ucp_worker_query(up.worker, &attributes), "ucp_worker_query");
    longest_header = attributes.max_am_header;
    VF_REQUIRE(longest_header >= 256, "headers of at most %zu bytes", longest_header);
    up_meet();
    while (up_more()) {
        for (int i = 0; i < PER_ROUND; i++) {
            uint64_t sequence = at.sent++;
            switch (vf_hash(sequence, 4, 5) % 3) {
            case 0:
                send_old(sequence);
                break;
            case 1:
                send_new(sequence, NEW);
                break;
            default:
                send_new(sequence, KEPT);
            }
        }
        at.expected += PER_ROUND;
        if (vf.round % 50 == 7) {
            late(at.sent++);
            at.expected++;
        }
        /* Not everything: something is always kept or unfetched when a switch comes. */
        while (at.arrived < at.expected || at.replies < at.wanted_replies) {
            ucp_worker_progress(up.worker);
        }
        settle(0);
    }
    /* Senders of what is not fetched yet wait for it. */
    settle(1);
    while (at.fetching > 0 || sending > 0) {
        ucp_worker_progress(up.worker);
    }
    up_meet();
    VF_REQUIRE(at.arrived == at.expected, "%llu messages arrived, %llu were sent",
               (unsigned long long)at.arrived, (unsigned long long)at.expected);
    VF_REQUIRE(at.replies == at.wanted_replies, "%llu replies, %llu were asked for",
               (unsigned long long)at.replies, (unsigned long long)at.wanted_replies);
    VF_REQUIRE(vf.round < 30 || (at.fetched && at.kept && at.dropped && at.replies),
               "fetched %llu kept %llu dropped %llu replies %llu: something was not tried",
               (unsigned long long)at.fetched, (unsigned long long)at.kept,
               (unsigned long long)at.dropped, (unsigned long long)at.replies);
    return up_end();
}
