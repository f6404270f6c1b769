#define _GNU_SOURCE
#include "session.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "disks.h"
#include "groups.h"
#include "port.h"
#include "resident.h"
#include "walk.h"

#define TICK_NS 5000000LL
#define FEATURE_CACHED_WALK 1
#define FEATURE_SEES_BLOCKS 2

static struct command_reader reader;
static uint64_t session; /* 0: no host has said hello */
static int greeting;     /* a host has, and waits for its answer */
static int device_gone;

/* The scan asked for and not begun; mode is SCAN_NONE when there is none. */
static struct {
    uint32_t request;
    enum scan_mode mode;
} pending;

/* The scan under way; lost: whoever asked for it is gone. */
static struct {
    uint32_t request;
    int running, cancelled, lost;
} scan;

/* One answer of each kind waits while a frame is being written; the host asks for one thing at a time. */
static struct {
    int hello, pong, refused, cancelled;
    uint32_t hello_request, pong_request, refused_request, cancelled_request;
    uint8_t refused_code;
} owed;

static long long last_tick;

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

uint32_t session_page_size(void) {
    return (uint32_t)sysconf(_SC_PAGESIZE);
}

uint32_t session_sectors_per_page(void) {
    return session_page_size() / 512;
}

static void hello(const struct command *command) {
    session = command->session;
    memset(&owed, 0, sizeof owed);
    pending.mode = SCAN_NONE;
    scan.lost = 1;
    if (command->length < 2 || command->payload[0] > PROTOCOL_VERSION || command->payload[1] < PROTOCOL_VERSION) {
        owed.refused = 1;
        owed.refused_request = command->request;
        owed.refused_code = ERROR_VERSION;
    } else {
        owed.hello = 1;
        owed.hello_request = command->request;
    }
}

static void refuse(uint32_t request, enum agent_error code) {
    owed.refused = 1;
    owed.refused_request = request;
    owed.refused_code = code;
}

static void obey(const struct command *command) {
    if (command->type == FRAME_HELLO && command->session) hello(command);
    if (command->type == FRAME_READ && command->length == 8) port_acknowledge(get_u64(command->payload));
    if (!session || command->session != session) return;
    if (command->type == FRAME_PING) {
        owed.pong = 1;
        owed.pong_request = command->request;
    } else if (command->type == FRAME_CANCEL) {
        if (scan.running && !scan.lost && scan.request == command->request) {
            scan.cancelled = 1;
            return;
        }
        if (pending.request == command->request) pending.mode = SCAN_NONE;
        owed.cancelled = 1;
        owed.cancelled_request = command->request;
    } else if (command->type == FRAME_SCAN) {
        uint8_t mode = command->length ? command->payload[0] : SCAN_NONE;
        if (pending.mode != SCAN_NONE || (scan.running && !scan.lost)) {
            refuse(command->request, ERROR_BUSY);
        } else if (mode != SCAN_FULL && mode != SCAN_CHANGES) {
            refuse(command->request, ERROR_BAD_REQUEST);
        } else {
            pending.request = command->request;
            pending.mode = mode;
        }
    }
}

/* Whoever asked is not there any more. */
static void hang_up(void) {
    session = 0;
    pending.mode = SCAN_NONE;
    scan.lost = 1;
}

static void listen(void) {
    for (;;) {
        long result = port_read(reader.bytes + reader.used, command_room(&reader));
        if (result == PORT_NOTHING) return;
        if (result < 0) {
            device_gone |= result == PORT_GONE;
            /* The kernel may hand us the first bytes of a new connection before it knows of the connection. */
            if (result != PORT_AWAY || !(owed.hello || greeting)) hang_up();
            return;
        }
        reader.used += (size_t)result;
        for (struct command command; command_next(&reader, &command);) obey(&command);
    }
}

/* Writes a whole frame of the session that is on; 0 when that session ended first. */
static int send_frame(enum frame_type type, uint32_t request, uint8_t *frame, size_t length) {
    uint64_t addressee = session;
    size_t sent = 0, total = FRAME_HEADER + length;
    if (!session) return 0;
    frame_seal(frame, type, session, request, (uint32_t)length);
    while (sent < total) {
        long result = port_write(frame + sent, total - sent);
        if (result > 0) {
            sent += (size_t)result;
            continue;
        }
        if (result == PORT_NOTHING) {
            listen();
            if (session != addressee || owed.hello) return 0;
            port_wait(1000);
        } else {
            device_gone |= result == PORT_GONE;
            hang_up();
            return 0;
        }
    }
    return 1;
}

static size_t encode_hello(uint8_t *payload) {
    static const char version[] = AGENT_VERSION;
    payload[0] = payload[1] = payload[2] = PROTOCOL_VERSION; /* lowest, highest, chosen */
    payload[3] = (walk_is_cached() ? FEATURE_CACHED_WALK : 0) | (resident_sees_blocks() ? FEATURE_SEES_BLOCKS : 0);
    put_u32(payload + 4, session_page_size());
    payload[8] = sizeof version - 1;
    memcpy(payload + 9, version, sizeof version - 1);
    return 9 + sizeof version - 1;
}

static void answer(void) {
    uint8_t frame[FRAME_HEADER + 64], *payload = frame + FRAME_HEADER;
    if (owed.refused) {
        owed.refused = 0;
        put_u16(payload, owed.refused_code);
        send_frame(FRAME_ERROR, owed.refused_request, frame, 2);
    }
    if (owed.pong) {
        owed.pong = 0;
        send_frame(FRAME_PONG, owed.pong_request, frame, 0);
    }
    if (owed.cancelled) {
        owed.cancelled = 0;
        send_frame(FRAME_CANCELLED, owed.cancelled_request, frame, 0);
    }
}

enum scan_mode session_wait(void) {
    uint8_t frame[FRAME_HEADER + 64];
    for (;;) {
        listen();
        if (device_gone) {
            device_gone = 0;
            reader.used = 0;
            return SCAN_NONE;
        }
        if (owed.hello) {
            owed.hello = 0;
            disks_reset();
            groups_reset();
            greeting = 1;
            send_frame(FRAME_HELLO_ACK, owed.hello_request, frame, encode_hello(frame + FRAME_HEADER));
            greeting = 0;
            continue;
        }
        answer();
        if (pending.mode != SCAN_NONE) break;
        priority_normal();
        port_wait(5000);
    }
    enum scan_mode mode = pending.mode;
    pending.mode = SCAN_NONE;
    scan.request = pending.request;
    scan.running = 1;
    scan.cancelled = scan.lost = 0;
    last_tick = now_ns();
    return mode;
}

static int wanted(void) {
    return !scan.lost && !scan.cancelled && !device_gone;
}

int session_tick(void) {
    long long now = now_ns();
    if (now - last_tick >= TICK_NS) {
        last_tick = now;
        listen();
        if (!scan.lost) answer();
        if (wanted()) priority_settle();
        else priority_lift();
    }
    return wanted();
}

int session_send(enum frame_type type, uint8_t *frame, size_t length) {
    if (scan.lost || device_gone || !send_frame(type, scan.request, frame, length)) return 0;
    return wanted();
}

void session_end(enum frame_type type, uint8_t *frame, size_t length) {
    if (!scan.lost && !device_gone) {
        if (scan.cancelled) send_frame(FRAME_CANCELLED, scan.request, frame, 0);
        else send_frame(type, scan.request, frame, length);
    }
    scan.running = 0;
}
