/*
 * command-server PORT: runs shell commands for the host, over a virtio-serial port.
 *
 *   host:  "run ID TIMEOUT_MS COMMAND\n"
 *   guest: "\nout ID TEXT\n" with standard output and error, any number of times,
 *          "\nend ID STATUS\n" once; STATUS is the exit status, 128 + N after signal N
 *
 * In COMMAND and TEXT every "%" is "%25" and every line feed "%0A". IDs are the host's and are only echoed: a host that
 * reconnects, or that meets the guest again on another host, ignores answers to commands it has not sent. Both sides
 * skip lines they do not understand, and begin with a line feed, which ends what may have been left half sent.
 * One command runs at a time; at its time-out it is killed with all its children.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools.h"

enum { MAX_LINE = 65536 };

static int port;

/* With no host connected, reads give 0 and writes may fail: both just mean "later". */
static size_t read_some(char *to, size_t length)
{
    for (;;) {
        ssize_t got = read(port, to, length);
        if (got > 0)
            return (size_t)got;
        usleep(20000);
    }
}

static void write_all(const char *from, size_t length)
{
    while (length > 0) {
        ssize_t put = write(port, from, length);
        if (put > 0) {
            from += put;
            length -= (size_t)put;
        } else {
            usleep(20000);
        }
    }
}

/* Reads up to a line feed; what exceeds the size is dropped. */
static void read_line(char *line, size_t size)
{
    static char buffer[4096];
    static size_t begin, end;
    size_t length = 0;
    for (;;) {
        if (begin == end) {
            begin = 0;
            end = read_some(buffer, sizeof buffer);
        }
        char c = buffer[begin++];
        if (c == '\n')
            break;
        if (length < size - 1)
            line[length++] = c;
    }
    line[length] = 0;
}

static void unescape(char *text)
{
    char *to = text;
    for (char *from = text; *from; to++) {
        int escaped = from[0] == '%' && from[1] && from[2];
        *to = !escaped ? *from : from[1] == '0' ? '\n' : '%';
        from += escaped ? 3 : 1;
    }
    *to = 0;
}

static size_t escape(char *to, const char *from, size_t length)
{
    char *start = to;
    for (size_t i = 0; i < length; i++) {
        if (from[i] != '%' && from[i] != '\n') {
            *to++ = from[i];
            continue;
        }
        memcpy(to, from[i] == '%' ? "%25" : "%0A", 3);
        to += 3;
    }
    return (size_t)(to - start);
}

static void run_command(const char *id, unsigned timeout_ms, char *command)
{
    static char output[16384], answer[128 + 3 * sizeof output];
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(pipes[1], 1);
        dup2(pipes[1], 2);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000;
    int status = 0, ended = 0;
    /* The shell's end is the command's end: a background process it started may keep the pipe open. */
    for (;;) {
        struct pollfd poller = {.fd = pipes[0], .events = POLLIN};
        ssize_t got = 0;
        if (poll(&poller, 1, ended ? 0 : 20) > 0 && (got = read(pipes[0], output, sizeof output)) > 0) {
            size_t length = (size_t)sprintf(answer, "\nout %s ", id);
            length += escape(answer + length, output, (size_t)got);
            answer[length++] = '\n';
            write_all(answer, length);
            continue;
        }
        if (ended)
            break;
        /* The write end is closed, but the shell may take a moment to end. */
        if (poller.revents && got == 0)
            usleep(1000);
        ended = waitpid(child, &status, WNOHANG) == child;
        if (!ended && now_ns() > deadline)
            kill(-child, SIGKILL);
    }
    close(pipes[0]);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    write_all(answer, (size_t)sprintf(answer, "\nend %s %d\n", id, code));
}

int command_server(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    port = open(argv[1], O_RDWR | O_CLOEXEC);
    if (port < 0) {
        perror(argv[1]);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    static char line[MAX_LINE];
    for (;;) {
        char id[65];
        unsigned timeout_ms;
        int at = 0;
        read_line(line, sizeof line);
        if (sscanf(line, "run %64s %u %n", id, &timeout_ms, &at) != 2 || at == 0)
            continue;
        unescape(line + at);
        run_command(id, timeout_ms, line + at);
    }
}
