/* pthreads(7): creation, locals, locks, ends; per-thread signals. */
#include "t.h"
#include <semaphore.h>

enum { N = 8 };
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t bar;
static sem_t sem;
static __thread long local;
static long counter;

static void *add(void *a)
{
	for (int i = 0; i < 5000; i++) {
		pthread_mutex_lock(&m);
		counter++;
		local++;
		pthread_mutex_unlock(&m);
	}
	return (void *)(local + (long)a);
}
CASE(create_join_mutex_tls)
{
	pthread_t t[N];
	for (long i = 0; i < N; i++)
		EQ(pthread_create(&t[i], NULL, add, (void *)i), 0);
	long sum = 0;
	for (int i = 0; i < N; i++) {
		void *r;
		EQ(pthread_join(t[i], &r), 0);
		sum += (long)r;
	}
	EQ(counter, N * 5000);
	EQ(sum, N * 5000 + 28);
	EQ(local, 0);
}

static void *ids(void *a)
{
	pid_t *p = a;
	p[0] = getpid();
	p[1] = gettid();
	p[2] = getppid();
	return NULL;
}
CASE(identities)
{
	pid_t a[3];
	pthread_t t;
	pthread_create(&t, NULL, ids, a);
	pthread_join(t, NULL);
	EQ(a[0], getpid());
	CHECK(a[1] != getpid());
	EQ(a[2], getppid());
}

static int turn;
static void *player(void *a)
{
	for (int i = 0; i < 300; i++) {
		pthread_mutex_lock(&m);
		while (turn != (int)(long)a)
			pthread_cond_wait(&c, &m);
		turn = !turn;
		counter++;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
	}
	return NULL;
}
CASE(condition_ping_pong)
{
	pthread_t a, b;
	pthread_create(&a, NULL, player, (void *)0);
	pthread_create(&b, NULL, player, (void *)1);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	EQ(counter, 600);
}

static void *meet(void *a)
{
	int serial = 0;
	for (int i = 0; i < 50; i++)
		serial += pthread_barrier_wait(&bar) == PTHREAD_BARRIER_SERIAL_THREAD;
	return (void *)(long)serial;
}
CASE(barrier)
{
	pthread_t t[4];
	pthread_barrier_init(&bar, NULL, 4);
	long n = 0;
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, meet, NULL);
	for (int i = 0; i < 4; i++) {
		void *r;
		pthread_join(t[i], &r);
		n += (long)r;
	}
	EQ(n, 50);
}

static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static volatile long x, y;
static void *reader(void *a)
{
	long bad = 0;
	for (int i = 0; i < 2000; i++) {
		pthread_rwlock_rdlock(&rw);
		bad += x != y;
		pthread_rwlock_unlock(&rw);
	}
	return (void *)bad;
}
static void *writer(void *a)
{
	for (int i = 0; i < 1000; i++) {
		pthread_rwlock_wrlock(&rw);
		x++;
		y++;
		pthread_rwlock_unlock(&rw);
	}
	return NULL;
}
CASE(rwlock)
{
	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, i < 2 ? reader : writer, NULL);
	long bad = 0;
	for (int i = 0; i < 4; i++) {
		void *r;
		pthread_join(t[i], &r);
		bad += (long)r;
	}
	EQ(bad, 0);
	EQ(x, 2000);
}

static void *post(void *a)
{
	for (int i = 0; i < 500; i++)
		sem_post(&sem);
	return NULL;
}
CASE(semaphores)
{
	pthread_t t;
	sem_init(&sem, 0, 0);
	pthread_create(&t, NULL, post, NULL);
	for (int i = 0; i < 500; i++)
		EQ(sem_wait(&sem), 0);
	pthread_join(t, NULL);
	ERR(sem_trywait(&sem), EAGAIN);
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += 20000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	ERR(sem_timedwait(&sem, &ts), ETIMEDOUT);
	/* Between processes. */
	sem_t *s = shared(4096);
	sem_init(s, 1, 0);
	pid_t p = CHILD(EQ(sem_wait(s), 0));
	sem_post(s);
	EQ(reap(p), 0);
}

CASE(shared_mutex_and_robust)
{
	pthread_mutex_t *s = shared(4096);
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(s, &a);
	/* The owner dies: the next gets EOWNERDEAD. */
	pid_t p = CHILD(pthread_mutex_lock(s));
	EQ(reap(p), 0);
	EQ(pthread_mutex_lock(s), EOWNERDEAD);
	EQ(pthread_mutex_consistent(s), 0);
	EQ(pthread_mutex_unlock(s), 0);
	/* And one that already waits. */
	int go[2];
	NEED(pipe(go));
	p = CHILD(pthread_mutex_lock(s); write(go[1], "x", 1); msleep(60); raise(SIGKILL));
	char b;
	EQ(read(go[0], &b, 1), 1);
	EQ(pthread_mutex_lock(s), EOWNERDEAD);
	EQ(reap(p), 1000 + SIGKILL);
	EQ(pthread_mutex_unlock(s), 0);
	EQ(pthread_mutex_lock(s), ENOTRECOVERABLE);
}

static void *spin_forever(void *a)
{
	for (;;)
		*(volatile long *)a += 1;
	return NULL;
}
static void *leave(void *a)
{
	msleep(20);
	_exit(7);
	return NULL;
}
CASE(group_exit_takes_all)
{
	static long n[4];
	pid_t p = CHILD(pthread_t t; for (int i = 0; i < 4; i++) pthread_create(&t, NULL, spin_forever, &n[i]); msleep(20); _exit(6));
	EQ(reap(p), 6);
	p = CHILD(pthread_t t; pthread_create(&t, NULL, leave, NULL); for (;;) pause());
	EQ(reap(p), 7);
	p = CHILD(pthread_t t; pthread_create(&t, NULL, spin_forever, &n[0]); pthread_create(&t, NULL, leave, NULL); spin_forever(&n[1]));
	EQ(reap(p), 7);
}

static void *outlive(void *a)
{
	msleep(50);
	exit(8);
	return NULL;
}
CASE(main_thread_may_end_first)
{
	pid_t p = CHILD(pthread_t t; pthread_create(&t, NULL, outlive, NULL); pthread_exit(NULL));
	EQ(reap(p), 8);
}

static volatile pid_t ran_on;
static void note(int s)
{
	ran_on = gettid();
}
static volatile pid_t other;
static void *sleeper(void *a)
{
	other = gettid();
	while (!ran_on)
		usleep(1000);
	return NULL;
}
CASE(directed_signals)
{
	on(SIGUSR1, note, 0);
	pthread_t t;
	pthread_create(&t, NULL, sleeper, NULL);
	UNTIL(other);
	EQ(pthread_kill(t, SIGUSR1), 0);
	UNTIL(ran_on);
	EQ(ran_on, other);
	pthread_join(t, NULL);
}
CASE(group_signal_goes_to_who_takes_it)
{
	on(SIGUSR1, note, 0);
	pthread_t t;
	pthread_create(&t, NULL, sleeper, NULL);
	sigset_t s = sigs(SIGUSR1, 0);
	pthread_sigmask(SIG_BLOCK, &s, NULL);
	UNTIL(other);
	OK(kill(getpid(), SIGUSR1));
	UNTIL(ran_on);
	EQ(ran_on, other);
	pthread_join(t, NULL);
}

static void *fault(void *a)
{
	*(volatile int *)8 = 1;
	return NULL;
}
CASE(fault_in_a_thread_ends_all)
{
	pid_t p = CHILD(pthread_t t; pthread_create(&t, NULL, fault, NULL); for (;;) pause());
	EQ(reap(p), 1000 + SIGSEGV);
}

static void *forker(void *a)
{
	for (int i = 0; i < 20; i++)
		if (reap(CHILD(_exit(3))) != 3)
			return (void *)1;
	return NULL;
}
CASE(forks_from_threads)
{
	pthread_t t[3];
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, forker, NULL);
	for (int i = 0; i < 3; i++) {
		void *r;
		pthread_join(t[i], &r);
		EQ((long)r, 0);
	}
}

static void *canceled(void *a)
{
	for (;;)
		pause();
	return NULL;
}
CASE(cancel_and_many)
{
	pthread_t t;
	void *r;
	pthread_create(&t, NULL, canceled, NULL);
	EQ(pthread_cancel(t), 0);
	EQ(pthread_join(t, &r), 0);
	CHECK(r == PTHREAD_CANCELED);
	for (int i = 0; i < 200; i++) {
		pthread_create(&t, NULL, ids, (pid_t[3]){0});
		pthread_join(t, NULL);
	}
	pthread_t many[60];
	for (int i = 0; i < 60; i++)
		EQ(pthread_create(&many[i], NULL, canceled, NULL), 0);
	for (int i = 0; i < 60; i++)
		pthread_cancel(many[i]);
	for (int i = 0; i < 60; i++)
		pthread_join(many[i], NULL);
}
MAIN
