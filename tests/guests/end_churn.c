/* 1,000 fork/exec/exit and 200 kill -9 of trees in one run; ends with nothing of its own left. */
#define CASE_SECONDS 200
#include "t.h"

CASE(fork_exec_exit)
{
	for (int i = 0; i < 1000; i++) {
		pid_t p = fork();
		if (p == 0) {
			if (i % 2)
				_exit(i & 0x7f);
			execl("/proc/self/exe", "churn", "-l", "quiet", NULL);
			execl(t_argv[0], "churn", "-l", "quiet", NULL);
			_exit(99);
		}
		EQ(reap(p), i % 2 ? i & 0x7f : 0);
	}
}

static void *spin(void *a)
{
	for (;;)
		if (a)
			pause();
	return a;
}
CASE(kill_trees)
{
	for (int i = 0; i < 200; i++) {
		int up[2];
		NEED(pipe(up));
		pid_t p = fork();
		if (p == 0) {
			setpgid(0, 0);
			close(up[0]);
			pthread_t t;
			pthread_create(&t, NULL, spin, (void *)1);
			for (int k = 0; k < 3; k++)
				if (fork() == 0) {
					write(up[1], "u", 1);
					if (k == 0)
						spin(NULL);
					pause();
				}
			write(up[1], "u", 1);
			pause();
		}
		close(up[1]);
		char b;
		for (int k = 0; k < 4; k++)
			EQ(read(up[0], &b, 1), 1);
		EQ(kill(-p, SIGKILL), 0);
		EQ(reap(p), 1000 + SIGKILL);
		/* The pipe ends when the last of the tree is gone. */
		EQ(read(up[0], &b, 1), 0);
		close(up[0]);
	}
}

int main(int argc, char **argv)
{
	return argc == 3 ? 0 : t_main(argc, argv);
}
