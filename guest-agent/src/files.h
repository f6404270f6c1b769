/*
 * Two files instead of a port, for a host that can do nothing in the guest but open, read and write files
 * (qemu-guest-agent): DIRECTORY/in, a FIFO with what the host says, and DIRECTORY/out, which is written here and read
 * from its beginning there.
 *
 * Leaves nothing behind: the names and the directory go as soon as the host has said its first word, the program's own
 * name at once, and the process itself when the host closes its end, or has been silent for too long.
 */
#ifndef VMMIG_FILES_H
#define VMMIG_FILES_H

#include <stddef.h>
#include <stdint.h>

/* Makes the files in a directory that holds nothing but this program. The descriptor to read from; -1: not possible. */
int files_make(const char *directory);

/* Takes note of what reading gave (bytes or a port_result); ends the process when there is no host any more. */
long files_heard(long result);

/* Bytes written (> 0), or PORT_NOTHING while the host has so much to read already. */
long files_write(const uint8_t *bytes, size_t length);

/* The host has read so many bytes altogether: they need no memory any more. */
void files_acknowledge(uint64_t total);

#endif
