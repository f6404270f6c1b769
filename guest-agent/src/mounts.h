/* The ext4 and XFS file systems that are mounted where we can see them. */
#ifndef VMMIG_MOUNTS_H
#define VMMIG_MOUNTS_H

#include <sys/types.h>

#define MAX_FILESYSTEMS 256

struct filesystem {
    dev_t device;
    int is_ext4;
    int root; /* a descriptor of the directory nearest to the file system's root */
};

/* Finds each file system once and opens its root; returns how many. */
int mounts_open(struct filesystem *filesystems);
void mounts_close(struct filesystem *filesystems, int count);

#endif
