/*
 * Two threads, and two processes, that take turns; each wait has a limit of an hour, which none needs.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 2000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int turn, late;

static void *threads(void *arg)
{
	int me = arg != NULL;
	pthread_mutex_lock(&lock);
	while (turn < TURNS) {
		if (turn % 2 == me) {
			turn++;
			pthread_cond_broadcast(&change);
			continue;
		}
		struct timespec limit;
		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_sec += 3600;
		late += pthread_cond_timedwait(&change, &lock, &limit) != 0;
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void processes(int in, int out, int first)
{
	char byte = 'x';
	if (first && write(out, &byte, 1) != 1)
		late++;
	for (int i = 0; i < TURNS; i++) {
		struct pollfd fd = {.fd = in, .events = POLLIN};
		if (poll(&fd, 1, 3600000) != 1)
			late++;
		if (read(in, &byte, 1) != 1 || (write(out, &byte, 1) != 1 && i + 1 < TURNS))
			late++;
	}
}

int main(void)
{
	pthread_t other;
	pthread_create(&other, NULL, threads, &late);
	threads(NULL);
	pthread_join(other, NULL);

	int there[2], back[2], status = 0;
	if (pipe(there) || pipe(back))
		return 1;
	pid_t child = fork();
	if (child == 0) {
		processes(there[0], back[1], 0);
		_exit(late != 0);
	}
	processes(back[0], there[1], 1);
	waitpid(child, &status, 0);
	if (late || status)
		printf("%d waits timed out, child %d\n", late, status);
	else
		printf("no wait timed out\n");
	return 0;
}
