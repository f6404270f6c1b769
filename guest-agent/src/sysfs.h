/* What sysfs says about block devices, by device number. */
#ifndef VMMIG_SYSFS_H
#define VMMIG_SYSFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads an attribute as text; returns its length, 0 or less when there is none. */
long sysfs_read(dev_t device, const char *attribute, char *text, size_t size);
int sysfs_number(dev_t device, const char *attribute, uint64_t *value);
int sysfs_exists(dev_t device, const char *attribute);
/* The kernel's name of the device, as in /dev; empty when it has none. */
void sysfs_name(dev_t device, char *name, size_t size);
/* The disk that a partition is part of; 0 when it is no partition. */
dev_t sysfs_parent(dev_t partition);
/* Device number of an entry of /sys/class/block; 0 when there is none. */
dev_t sysfs_device(const char *entry);

#endif
