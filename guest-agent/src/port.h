/*
 * The virtio-serial port: finding and opening it, and moving bytes without ever blocking for good or spinning
 * while nobody is connected on the host.
 *
 * A watcher thread waits for input beside the scan. It does nothing but lift the scanning thread above all others when
 * the host speaks, so that a cancel is answered in time in a guest whose processors are all busy. (Normal priority would
 * not do: a thread that was idle owes the others the time that it has had, for seconds.)
 */
#ifndef VMMIG_PORT_H
#define VMMIG_PORT_H

#include <stddef.h>
#include <stdint.h>

enum port_result {
    PORT_NOTHING = 0, /* nothing to read, or no room to write, right now */
    PORT_AWAY = -1,   /* the host side is not connected */
    PORT_GONE = -2,   /* the device itself is gone: open it again */
};

/* Waits until the port can be opened; path is NULL for the port named org.vmmig.agent.0. */
void port_open(const char *path);
/* Two files in a directory take the port's place: see files.h. 0 when they cannot be made. */
int port_open_files(const char *directory);
void port_close(void);

/* Bytes read (> 0) or a port_result. */
long port_read(uint8_t *bytes, size_t room);
/* Bytes written (> 0) or a port_result. */
long port_write(const uint8_t *bytes, size_t length);
/* The host says that it has got so many bytes: matters to files only. */
void port_acknowledge(uint64_t total);
/* Sleeps until the port's state changed or the time is over (-1: no limit). */
void port_wait(int timeout_ms);

/* Starts the watcher thread. The calling thread is the one whose priority is managed. */
void priority_start(void);
/* For a scan. */
void priority_idle(void);
/* For ending a scan early. */
void priority_lift(void);
/* For the rest. */
void priority_normal(void);
/* Idle again, if the watcher has lifted the priority. */
void priority_settle(void);

#endif
