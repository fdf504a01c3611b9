/* Promise: a process that never made an endpoint can answer active messages over the endpoint that
 * UCX offers for the reply, over the last one as well as over the first that it ever got; it is
 * found again when there is a new transport. Messages to ids without a handler hold nobody up,
 * however high the ids are. Two processes without MPI: one asks, the other one answers.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES UCP_FEATURE_AM
#define UP_CONNECTS (up.me == 0)
#include "pair.h"

enum { QUESTION = 1, ANSWER = 40000, UNHEARD = 200, UNHEARD_HIGH = 65000, LENGTH = 5000 };

static struct {
    uint64_t number;
    int waiting;
    ucp_ep_h reply_ep, first_ep;
    char data[LENGTH];
} last;

static void answer(uint64_t number)
{
    ucp_request_param_t none = {0};
    char data[LENGTH];
    vf_fill(data, LENGTH, up.me, ANSWER, number);
    ucp_ep_h ep = number % 2 ? last.reply_ep : last.first_ep;
    up_finish(ucp_am_send_nbx(ep, ANSWER, &number, sizeof number, data, LENGTH, &none),
              "answer");
}

static ucs_status_t on_message(void *id, const void *header, size_t header_length, void *data,
                               size_t length, const ucp_am_recv_param_t *param)
{
    VF_REQUIRE(header_length == sizeof last.number && length == LENGTH, "header %zu data %zu",
               header_length, length);
    VF_REQUIRE(!(param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV), "a rendezvous of %zu bytes", length);
    memcpy(&last.number, header, sizeof last.number);
    memcpy(last.data, data, length);
    last.waiting = 1;
    if (*(int *)id == QUESTION) {
        VF_REQUIRE(param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP, "nobody to answer to");
        last.reply_ep = param->reply_ep;
        if (last.first_ep == NULL) {
            last.first_ep = param->reply_ep;
        }
    }
    return UCS_OK;
}

static void await(int id, uint64_t number)
{
    while (!last.waiting) {
        ucp_worker_progress(up.worker);
    }
    last.waiting = 0;
    VF_REQUIRE(last.number == number, "number %llu", (unsigned long long)last.number);
    vf_check(last.data, LENGTH, up.peer, id, number);
}

int main(int argc, char **argv)
{
    int id;
    up_start("answers", 0, 0, NULL, argc, argv);
    id = up.me == 0 ? ANSWER : QUESTION;
    ucp_am_handler_param_t handler = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                    UCP_AM_HANDLER_PARAM_FIELD_CB |
                                                    UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                      .id = (unsigned)id, .cb = on_message, .arg = &id};
    up_expect(ucp_worker_set_am_recv_handler(up.worker, &handler), "ucp_worker_set_am_recv_handler");
    up_meet();
    while (up_more()) {
        uint64_t number = (uint64_t)vf.round;
        if (up.me == 1) {
            await(QUESTION, number);
            answer(number);
            continue;
        }
        ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                     .flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER};
        char data[LENGTH];
        vf_fill(data, LENGTH, up.me, QUESTION, number);
        up_finish(ucp_am_send_nbx(up.ep, QUESTION, &number, sizeof number, data, LENGTH, &param),
                  "question");
        for (int high = 0; high < 2; high++) {
            up_finish(ucp_am_send_nbx(up.ep, high ? UNHEARD_HIGH : UNHEARD, NULL, 0, data, LENGTH,
                                      &param), "a message that nobody hears");
        }
        await(ANSWER, number);
    }
    return up_end();
}
