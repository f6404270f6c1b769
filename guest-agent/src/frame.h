/*
 * The frames of docs/agent-protocol.md: one fixed header, a payload, a checksum over both.
 * No input or output happens here.
 */
#ifndef VMMIG_FRAME_H
#define VMMIG_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_MAGIC 0x41474d56u /* "VMGA" */
#define FRAME_VERSION 1
#define FRAME_HEADER 28
#define FRAME_MAX_PAYLOAD (128 * 1024)
#define COMMAND_MAX_PAYLOAD 16
#define PROTOCOL_VERSION 1

enum frame_type {
    /* from the host */
    FRAME_HELLO = 0x01,
    FRAME_SCAN = 0x02,
    FRAME_CANCEL = 0x03,
    FRAME_PING = 0x04,
    FRAME_READ = 0x05,
    /* from the agent */
    FRAME_HELLO_ACK = 0x81,
    FRAME_DISKS = 0x82,
    FRAME_GROUPS = 0x83,
    FRAME_REMOVED = 0x84,
    FRAME_DONE = 0x85,
    FRAME_CANCELLED = 0x86,
    FRAME_PONG = 0x87,
    FRAME_ERROR = 0x88,
};

enum agent_error { ERROR_BUSY = 1, ERROR_VERSION = 2, ERROR_UNSUPPORTED = 3, ERROR_BAD_REQUEST = 4 };

struct command {
    uint8_t type;
    uint64_t session;
    uint32_t request;
    uint32_t length;
    uint8_t payload[COMMAND_MAX_PAYLOAD];
};

uint64_t get_u64(const uint8_t *at);

/* Collects the host's bytes and finds commands in them, whatever else is in between. */
struct command_reader {
    uint8_t bytes[512];
    size_t used;
};

void put_u16(uint8_t *at, uint16_t value);
void put_u32(uint8_t *at, uint32_t value);
void put_u64(uint8_t *at, uint64_t value);
/* Both return the position after the last byte written: at most 10 bytes. */
uint8_t *put_varint(uint8_t *at, uint64_t value);
uint8_t *put_zigzag(uint8_t *at, int64_t value);

/* Writes the header of a frame whose payload already stands at frame + FRAME_HEADER. */
void frame_seal(uint8_t *frame, enum frame_type type, uint64_t session, uint32_t request, uint32_t length);

/* How many bytes may be read into reader->bytes + reader->used. */
size_t command_room(const struct command_reader *reader);
/* Takes the next whole, checksummed command; 0 when there is none yet. Anything that is not one is dropped. */
int command_next(struct command_reader *reader, struct command *command);

#endif
