/*
 * The Empty container of a hot upgrade: the place that the next version is put into. It has the command, hooks and probes of
 * the sidecar, for OpenKruise changes nothing but the image, and does nothing in each of them. One static program, no shell.
 *
 *   sluice agent [options]    stays until SIGTERM, then ends at once with 0
 *   sluice agent SUBCOMMAND   (wait, prestop, status, ...) ends at once with 0: a hook or an exec probe
 *
 * It never listens: both containers share the Pod's network, so the sidecar's port answers the probes of both.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(int fd, const char *text) {
  /* Nobody may be reading; there is nothing to do about it. */
  ssize_t written = write(fd, text, strlen(text));
  (void)written;
}

/* The first process of a container has no default action for signals, and inherits orphans. */
static int stay(void) {
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGTERM);
  sigaddset(&awaited, SIGINT);
  sigaddset(&awaited, SIGCHLD);
  sigprocmask(SIG_BLOCK, &awaited, NULL);
  say(1, "empty: waits for the next version\n");
  for (;;) {
    int arrived = 0;
    if (sigwait(&awaited, &arrived) != 0) continue;
    if (arrived != SIGCHLD) return 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  }
}

int main(int argc, char **argv) {
  if (argc < 2 || strcmp(argv[1], "agent") != 0) {
    say(2, "expected `sluice agent`, found another command: this is the Empty image, which has no other\n");
    return 2;
  }
  if (argc == 2 || argv[2][0] == '-') return stay();
  say(1, "empty: nothing to do here\n");
  return 0;
}
