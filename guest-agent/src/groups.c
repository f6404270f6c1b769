#define _GNU_SOURCE
#include "groups.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "frame.h"
#include "session.h"

#ifndef GRND_INSECURE /* Linux 5.6 */
#define GRND_INSECURE 4
#endif
#define FLUSH_BYTES (32 * 1024)
#define MIN_SLOTS (1u << 12)
#define MAX_SLOTS (1u << 21) /* 32 MiB */
#define ID_BITS 53           /* an exact number for the host */
#define ID_MASK ((1ULL << ID_BITS) - 1)
#define SLOT_USED (1ULL << 63)
#define SLOT_SEEN (1ULL << 62)
#define MAX_REMOVED 4096
/* id, count, and for each run: pages and disk flag, disk, page delta (55 bits), sector delta (55 bits) */
#define GROUP_MAX_BYTES (8 + 2 + WINDOW_PAGES * (2 + 2 + 8 + 8))
_Static_assert(FLUSH_BYTES + GROUP_MAX_BYTES <= FRAME_MAX_PAYLOAD, "a frame holds a batch and one more group");
_Static_assert(8 * MAX_REMOVED <= FLUSH_BYTES, "a frame holds a batch of ids");

struct slot {
    uint64_t key; /* id, SLOT_USED, SLOT_SEEN */
    uint64_t digest;
};

static struct slot *slots;
static uint32_t slot_count, used_count;
static uint64_t secret[2];

static uint8_t frame[FRAME_HEADER + FLUSH_BYTES + GROUP_MAX_BYTES];
static uint32_t filled;
/* the run before, to which deltas refer */
static uint64_t next_pfn, next_sector;
static uint32_t last_disk;

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93ULL;
    return hash ^ hash >> 29;
}

static struct slot *map_slots(uint32_t count) {
    void *memory =
        mmap(NULL, count * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void forget(void) {
    if (slots) munmap(slots, slot_count * sizeof *slots);
    slots = NULL;
    slot_count = used_count = 0;
}

/* The slot of an id, or the empty one where it belongs. The id is a digest already. */
static struct slot *find(uint64_t id) {
    uint32_t at = (uint32_t)id & (slot_count - 1);
    while (slots[at].key && (slots[at].key & ID_MASK) != id) at = (at + 1) & (slot_count - 1);
    return &slots[at];
}

/* Makes room for one more: no when the table may not grow further. */
static int reserve(void) {
    if (used_count < slot_count / 4 * 3) return 1;
    uint32_t count = slot_count ? slot_count * 2 : MIN_SLOTS, old_count = slot_count;
    struct slot *old = slots, *grown = count > MAX_SLOTS ? NULL : map_slots(count);
    if (!grown) return 0;
    slots = grown;
    slot_count = count;
    for (uint32_t i = 0; i < old_count; i++)
        if (old[i].key) *find(old[i].key & ID_MASK) = old[i];
    if (old) munmap(old, old_count * sizeof *old);
    return 1;
}

/* Empties a slot and closes the gap, so that searches need no tombstones. */
static void erase(uint32_t hole) {
    for (uint32_t at = (hole + 1) & (slot_count - 1); slots[at].key; at = (at + 1) & (slot_count - 1)) {
        uint32_t home = (uint32_t)slots[at].key & (slot_count - 1);
        if (((at - home) & (slot_count - 1)) < ((at - hole) & (slot_count - 1))) continue;
        slots[hole] = slots[at];
        hole = at;
    }
    slots[hole] = (struct slot){0, 0};
    used_count--;
}

static void start_frame(void) {
    filled = 0;
    next_pfn = next_sector = 0;
    last_disk = 0;
}

int groups_flush(void) {
    uint32_t length = filled;
    start_frame();
    return !length || session_send(FRAME_GROUPS, frame, length);
}

void groups_reset(void) {
    forget();
    start_frame();
    /* Never waits: a guest that has just booted may take seconds to gather entropy, and the host waits for us. */
    if (getrandom(secret, sizeof secret, GRND_INSECURE) < 0) getrandom(secret, sizeof secret, GRND_NONBLOCK);
}

void groups_begin(int full) {
    if (full) forget();
    for (uint32_t i = 0; i < slot_count; i++) slots[i].key &= ~SLOT_SEEN;
    start_frame();
}

uint64_t group_id(uint64_t device, uint64_t inode, uint64_t window) {
    return mix(mix(mix(mix(secret[0], device), inode), window), secret[1]) & ID_MASK;
}

int group_seen(uint64_t id) {
    return slots && (find(id)->key & SLOT_SEEN);
}

static void encode(uint64_t id, const struct run *runs, uint32_t count, int kept) {
    uint8_t *at = frame + FRAME_HEADER + filled;
    put_u64(at, id);
    at = put_varint(at + 8, (uint64_t)count << 1 | !kept);
    for (const struct run *run = runs; run < runs + count; run++) {
        at = put_varint(at, (uint64_t)(run->pages - 1) << 1 | (run->disk != last_disk));
        if (run->disk != last_disk) at = put_varint(at, run->disk);
        at = put_zigzag(at, (int64_t)(run->pfn - next_pfn));
        at = put_zigzag(at, (int64_t)(run->sector - next_sector));
        next_pfn = run->pfn + run->pages;
        next_sector = run->sector + run->pages * session_sectors_per_page();
        last_disk = run->disk;
    }
    filled = (uint32_t)(at - frame) - FRAME_HEADER;
}

int group_add(uint64_t id, const struct run *runs, uint32_t count) {
    uint64_t digest = mix(secret[1], count);
    for (const struct run *run = runs; run < runs + count; run++)
        digest = mix(mix(digest, run->pfn << 13 | run->pages), run->sector << 8 | run->disk);
    struct slot *slot = slots ? find(id) : NULL;
    int known = slot && slot->key, kept = known, changed = !known || slot->digest != digest;
    if (known) {
        slot->digest = digest;
        slot->key |= SLOT_SEEN;
    } else if (reserve()) {
        *find(id) = (struct slot){id | SLOT_USED | SLOT_SEEN, digest};
        used_count++;
        kept = 1;
    }
    if (!changed || (!known && !count)) return 1;
    encode(id, runs, count, kept);
    return filled < FLUSH_BYTES || groups_flush();
}

int groups_finish(void) {
    uint32_t removed = 0;
    if (!groups_flush()) return 0;
    for (uint32_t i = 0; i < slot_count;) {
        if (!slots[i].key || slots[i].key & SLOT_SEEN) {
            i++;
            continue;
        }
        put_u64(frame + FRAME_HEADER + 8 * removed++, slots[i].key & ID_MASK);
        erase(i);
        if (removed == MAX_REMOVED) {
            if (!session_send(FRAME_REMOVED, frame, 8 * removed)) return 0;
            removed = 0;
        }
    }
    return !removed || session_send(FRAME_REMOVED, frame, 8 * removed);
}
