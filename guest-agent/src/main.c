/*
 * vmmig-agent: tells the host which guest pages are copies of which disk ranges. Never contents, never names of files;
 * nothing the host can send makes it read or change anything else. The protocol is in docs/agent-protocol.md.
 *
 *     vmmig-agent [PORT]
 *     vmmig-agent --files DIRECTORY
 *
 * PORT defaults to the virtio-serial port named org.vmmig.agent.0. Runs in the foreground, as root. With --files it
 * serves one host through two files, and leaves nothing behind: see files.h.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "port.h"
#include "scan.h"
#include "session.h"

static int serve_files(const char *directory) {
    if (!port_open_files(directory)) {
        perror(directory);
        return 1;
    }
    for (;;) scan(session_wait());
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : NULL;
    int files = argc == 3 && !strcmp(path, "--files");
    if (!files && (argc > 2 || (path && path[0] == '-'))) {
        fprintf(stderr, "vmmig-agent %s\nusage: vmmig-agent [PORT | --files DIRECTORY]\n", AGENT_VERSION);
        return path && !strcmp(path, "--version") ? 0 : 2;
    }
    signal(SIGPIPE, SIG_IGN);
    priority_start();
    mlockall(MCL_CURRENT); /* so that the agent itself is never read back from disk */
    if (files) return serve_files(argv[2]);
    for (;;) {
        port_open(path);
        for (enum scan_mode mode; (mode = session_wait()) != SCAN_NONE;) scan(mode);
        port_close();
    }
}
