#define _GNU_SOURCE
#include "ext4dir.h"

#include <dirent.h>
#include <string.h>

#include "extents.h"
#include "resident.h"
#include "session.h"

#define ENTRY_HEADER 8

/* Entries of one directory block: le32 inode, le16 length of the record, u8 length of the name, u8 type, name. */
static int list_block(const uint8_t *block, size_t size, entry_visitor *visit, void *context) {
    static const unsigned char types[] = {DT_UNKNOWN, DT_REG, DT_DIR, DT_CHR, DT_BLK, DT_FIFO, DT_SOCK, DT_LNK};
    char name[256];
    for (size_t at = 0; at + ENTRY_HEADER <= size;) {
        const uint8_t *entry = block + at;
        size_t record = entry[4] | (size_t)entry[5] << 8, length = entry[6];
        if (record < ENTRY_HEADER || at + record > size) break; /* no directory block after all, or 64 KiB ones */
        at += record;
        if (!(entry[0] | entry[1] | entry[2] | entry[3]) || !length || ENTRY_HEADER + length > record) continue;
        memcpy(name, entry + ENTRY_HEADER, length);
        name[length] = 0;
        if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
        if (!visit(context, name, entry[7] < sizeof types ? types[entry[7]] : DT_UNKNOWN)) return 0;
    }
    return 1;
}

static int list_extent(int device, uint64_t from, uint64_t end, size_t block_size, entry_visitor *visit,
                       void *context) {
    uint8_t block[4096]; /* on the stack: directories are listed within each other */
    for (; from < end; from += block_size) {
        if (!session_tick()) return 0;
        if (!resident_read(device, from, block_size, block)) continue;
        if (!list_block(block, block_size, visit, context)) return 0;
    }
    return 1;
}

int ext4dir_list(int device, int directory, size_t block_size, entry_visitor *visit, void *context) {
    struct fiemap_extent extent;
    struct extents extents;
    int found = 0;
    /* A block smaller than a page could not be read without its neighbours. */
    if (block_size != session_page_size() || block_size > 4096 || !resident_sees_blocks()) return -1;
    extents_open(&extents, directory, 0, UINT64_MAX);
    while (extents_next(&extents, &extent)) {
        if (extent_reason(&extent)) return -1;
        found = 1;
        if (!list_extent(device, extent.physical, extent.physical + extent.length, block_size, visit, context))
            return 0;
    }
    return found ? 1 : -1;
}
