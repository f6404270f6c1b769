/* One scan of everything there is, from the disks' own pages to files that have no name any more. */
#ifndef VMMIG_SCAN_H
#define VMMIG_SCAN_H

#include "session.h"

/* Runs the scan that session_wait returned, and answers the host. */
void scan(enum scan_mode mode);

#endif
