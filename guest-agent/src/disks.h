/* The guest's whole disks, identified so that the host can match them with QEMU's block nodes. */
#ifndef VMMIG_DISKS_H
#define VMMIG_DISKS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_DISKS 256

/* Looks at the disks there are now. An index keeps its meaning until disks_reset. */
void disks_refresh(void);
void disks_reset(void);
/* Index of a whole disk, or -1 when this block device is not one (loop, md, ram, removable media). */
int disk_index(dev_t device);
/* Writes the payload of a DISKS frame, at most room bytes; returns its length. */
size_t disks_encode(uint8_t *payload, size_t room);

#endif
