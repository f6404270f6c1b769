/* One static program that is several commands of the tiny guest, chosen by the name it is called with. */
#include <stdio.h>
#include <string.h>

#include "tools.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"command-server", command_server}, {"counter", counter}, {"pattern", pattern},
    {"ticker", ticker},                 {"fswriter", fswriter}, {"dm-linear", dm_linear},
};

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc, argv);
    fprintf(stderr, "labtools: no command %s\n", name);
    return 2;
}
