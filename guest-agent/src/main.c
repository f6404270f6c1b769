/*
 * vmmig-agent: tells the host which guest pages are copies of which disk ranges. Never contents, never names of files;
 * nothing the host can send makes it read or change anything else. The protocol is in docs/agent-protocol.md.
 *
 *     vmmig-agent [PORT]
 *
 * PORT defaults to the virtio-serial port named org.vmmig.agent.0. Runs in the foreground, as root.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "port.h"
#include "scan.h"
#include "session.h"

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : NULL;
    if (argc > 2 || (path && path[0] == '-')) {
        fprintf(stderr, "vmmig-agent %s\nusage: vmmig-agent [PORT]\n", AGENT_VERSION);
        return path && !strcmp(path, "--version") ? 0 : 2;
    }
    signal(SIGPIPE, SIG_IGN);
    priority_start();
    mlockall(MCL_CURRENT); /* so that the agent itself is never read back from disk */
    for (;;) {
        port_open(path);
        for (enum scan_mode mode; (mode = session_wait()) != SCAN_NONE;) scan(mode);
        port_close();
    }
}
