#include "frame.h"

#include <string.h>

static uint32_t crc_table[256];

static uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t length) {
    if (!crc_table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320u ^ (value >> 1) : value >> 1;
            crc_table[i] = value;
        }
    }
    crc = ~crc;
    while (length--) crc = crc_table[(crc ^ *bytes++) & 0xff] ^ (crc >> 8);
    return ~crc;
}

void put_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void put_u32(uint8_t *at, uint32_t value) {
    put_u16(at, (uint16_t)value);
    put_u16(at + 2, (uint16_t)(value >> 16));
}

void put_u64(uint8_t *at, uint64_t value) {
    put_u32(at, (uint32_t)value);
    put_u32(at + 4, (uint32_t)(value >> 32));
}

static uint32_t get_u32(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint64_t get_u64(const uint8_t *at) {
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

uint8_t *put_varint(uint8_t *at, uint64_t value) {
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

uint8_t *put_zigzag(uint8_t *at, int64_t value) {
    return put_varint(at, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

static uint32_t frame_checksum(const uint8_t *frame, uint32_t length) {
    return crc32_update(crc32_update(0, frame, FRAME_HEADER - 4), frame + FRAME_HEADER, length);
}

void frame_seal(uint8_t *frame, enum frame_type type, uint64_t session, uint32_t request, uint32_t length) {
    put_u32(frame, FRAME_MAGIC);
    frame[4] = FRAME_VERSION;
    frame[5] = (uint8_t)type;
    put_u16(frame + 6, 0);
    put_u64(frame + 8, session);
    put_u32(frame + 16, request);
    put_u32(frame + 20, length);
    put_u32(frame + 24, frame_checksum(frame, length));
}

size_t command_room(const struct command_reader *reader) {
    return sizeof reader->bytes - reader->used;
}

static void drop(struct command_reader *reader, size_t length) {
    reader->used -= length;
    memmove(reader->bytes, reader->bytes + length, reader->used);
}

int command_next(struct command_reader *reader, struct command *command) {
    while (reader->used >= FRAME_HEADER) {
        const uint8_t *frame = reader->bytes;
        uint32_t length = get_u32(frame + 20);
        /* Bytes of a connection that was cut, or noise: look for a frame one byte further on. */
        if (get_u32(frame) != FRAME_MAGIC || frame[4] != FRAME_VERSION || length > COMMAND_MAX_PAYLOAD) {
            drop(reader, 1);
            continue;
        }
        if (reader->used < FRAME_HEADER + length) return 0;
        if (get_u32(frame + 24) != frame_checksum(frame, length)) {
            drop(reader, 1);
            continue;
        }
        command->type = frame[5];
        command->session = get_u64(frame + 8);
        command->request = get_u32(frame + 16);
        command->length = length;
        memcpy(command->payload, frame + FRAME_HEADER, length);
        drop(reader, FRAME_HEADER + length);
        return 1;
    }
    return 0;
}
