/*
 * The conversation with the host: which session is on, what the host asked for, and sending frames without
 * losing sight of what it asks meanwhile.
 */
#ifndef VMMIG_SESSION_H
#define VMMIG_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "frame.h"

/* Waits for the next request to scan. Returns its mode; 0 when the port has to be opened again. */
enum scan_mode { SCAN_NONE = 0, SCAN_FULL = 1, SCAN_CHANGES = 2 };
enum scan_mode session_wait(void);

/*
 * To be called every few milliseconds during a scan: listens to the host. 0 when the scan must end: it was cancelled,
 * the host went away, or another one came.
 */
int session_tick(void);

/*
 * Sends a frame of the scan under way; its payload stands at frame + FRAME_HEADER. Waits for the host as long as it
 * takes. 0 when the scan must end; the frame was sent all the same if there is still someone to send it to.
 */
int session_send(enum frame_type type, uint8_t *frame, size_t length);

/* Ends the scan: CANCELLED if it was cancelled, else the frame given. */
void session_end(enum frame_type type, uint8_t *frame, size_t length);

uint32_t session_page_size(void);
uint32_t session_sectors_per_page(void);

#endif
