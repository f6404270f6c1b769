/*
 * One of the lab's hosts, as namespaces.
 *
 *   lab-host start LAB_DIRECTORY NAME   becomes the first process of a new host and prints its process id
 *   lab-host exec PID COMMAND...        runs a command in the host whose first process is PID
 *
 * A host has its own network, mount, UTS, IPC and PID namespaces. Its first process does nothing but reap orphans; when
 * it is killed, the kernel kills every process of the host and the namespaces go with the last of them. Its own command
 * line is how the lab finds it again, whatever became of the program that started it.
 *
 * `exec` stays outside, passes signals that processes send it on to the command, ends as the command ends, and takes the
 * command with it when it is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NAMESPACES = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID };

static int fail(const char *what)
{
    fprintf(stderr, "lab-host: %s: %s\n", what, strerror(errno));
    return 1;
}

static int be_first_process(const char *name, int ready)
{
    setsid();
    if (sethostname(name, strlen(name)) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("proc", "/proc", "proc", 0, NULL) != 0 || chdir("/") != 0)
        return fail(name);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (write(ready, "", 1) != 1)
        return 1;
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    close_range(3, ~0U, 0);
    for (;;) {
        sigwaitinfo(&signals, NULL);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

static int start(const char *name)
{
    int pipes[2];
    char byte;
    if (pipe(pipes) != 0 || unshare(NAMESPACES) != 0)
        return fail("unshare");
    pid_t pid = fork();
    if (pid < 0)
        return fail("fork");
    if (pid == 0) {
        close(pipes[0]);
        _exit(be_first_process(name, pipes[1]));
    }
    close(pipes[1]);
    if (read(pipes[0], &byte, 1) != 1)
        return 1;
    printf("%d\n", pid);
    return 0;
}

static int exec_in(pid_t host, char **command)
{
    sigset_t signals, before;
    sigfillset(&signals);
    sigprocmask(SIG_BLOCK, &signals, &before);
    int fd = (int)syscall(SYS_pidfd_open, host, 0);
    if (fd < 0 || setns(fd, NAMESPACES) != 0)
        return fail("setns");
    close(fd);
    pid_t child = fork();
    if (child < 0)
        return fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        execvp(command[0], command);
        fprintf(stderr, "lab-host: %s: %s\n", command[0], strerror(errno));
        _exit(127);
    }
    for (;;) {
        siginfo_t signal_info;
        int number = sigwaitinfo(&signals, &signal_info);
        /* What a terminal sends goes to the whole process group, the command included. */
        if (number > 0 && number != SIGCHLD && signal_info.si_code == SI_USER)
            kill(child, number);
        int status;
        if (waitpid(child, &status, WNOHANG) != child)
            continue;
        if (WIFEXITED(status))
            return WEXITSTATUS(status);
        /* End the same way, without a second core dump. */
        prctl(PR_SET_DUMPABLE, 0);
        signal(WTERMSIG(status), SIG_DFL);
        sigprocmask(SIG_UNBLOCK, &signals, NULL);
        raise(WTERMSIG(status));
        return 128 + WTERMSIG(status);
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "start") == 0)
        return start(argv[3]);
    if (argc > 3 && strcmp(argv[1], "exec") == 0)
        return exec_in(atoi(argv[2]), argv + 3);
    fputs("usage: lab-host start LAB_DIRECTORY NAME | exec PID COMMAND...\n", stderr);
    return 2;
}
