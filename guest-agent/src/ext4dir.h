/*
 * Lists an ext4 directory from the block device's page cache, without a read from disk.
 *
 * readdir would read the blocks that are not cached. But a file that is cached was looked up by name, so the block
 * with its name is likely cached even when the rest of a large directory is not: those blocks are looked at directly.
 */
#ifndef VMMIG_EXT4DIR_H
#define VMMIG_EXT4DIR_H

#include <stddef.h>

/* Called for each entry but "." and ".."; type is one of DT_*. Returns 0 to stop. */
typedef int entry_visitor(void *context, const char *name, unsigned char type);

/*
 * 1: listed, 0: the visitor stopped it, -1: it cannot be listed that way: it is inside its inode, or this kernel does
 * not say which blocks are cached (before Linux 6.5).
 */
int ext4dir_list(int device, int directory, size_t block_size, entry_visitor *visit, void *context);

#endif
