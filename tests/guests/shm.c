/* shm_open(3), shmget(2), semget(2), msgget(2): memory and queues shared between processes. */
#include "t.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

CASE(dev_shm)
{
	char n[64];
	snprintf(n, sizeof n, "/tg-test-%d", getpid());
	int fd = NEED(shm_open(n, O_RDWR | O_CREAT | O_EXCL, 0600));
	ERR(shm_open(n, O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	OK(ftruncate(fd, 8192));
	volatile int *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	p[0] = 1;
	pid_t c = CHILD(p[0]++; int g = NEED(shm_open(n, O_RDWR, 0)); volatile int *q = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, g, 0);
			EQ(q[0], 2); q[1] = 7);
	EQ(reap(c), 0);
	EQ(p[0], 2);
	EQ(p[1], 7);
	OK(shm_unlink(n));
	ERR(shm_unlink(n), ENOENT);
	EQ(p[1], 7);
}

CASE(sysv_shm)
{
	int id = NEED(shmget(IPC_PRIVATE, 5000, IPC_CREAT | 0600));
	volatile int *p = shmat(id, NULL, 0);
	CHECK(p != (void *)-1);
	EQ(p[0], 0);
	pid_t c = CHILD(volatile int *q = shmat(id, NULL, 0); q[10] = 42; EQ(shmdt((void *)q), 0));
	EQ(reap(c), 0);
	EQ(p[10], 42);
	struct shmid_ds d;
	OK(shmctl(id, IPC_STAT, &d));
	EQ(d.shm_segsz, 5000);
	EQ(d.shm_nattch, 1);
	OK(shmctl(id, IPC_RMID, NULL));
	EQ(p[10], 42);
	OK(shmdt((void *)p));
	ERR(shmat(id, NULL, 0) == (void *)-1 ? -1 : 0, EINVAL);
	ERR(shmdt((void *)4096), EINVAL);
	ERR(shmget(0x7e57aaaa, 100, 0), ENOENT);
	ERR(shmget(IPC_PRIVATE, 0, IPC_CREAT), EINVAL);
}

CASE(sysv_sem)
{
	int id = NEED(semget(IPC_PRIVATE, 2, IPC_CREAT | 0600));
	union {
		int val;
		void *p;
	} a = {.val = 1};
	OK(semctl(id, 0, SETVAL, a));
	struct sembuf down = {0, -1, 0}, up = {0, 1, 0}, try = {0, -1, IPC_NOWAIT}, undo = {1, 1, SEM_UNDO};
	OK(semop(id, &down, 1));
	ERR(semop(id, &try, 1), EAGAIN);
	pid_t c = CHILD(OK(semop(id, &down, 1)); OK(semop(id, &undo, 1)); EQ(semctl(id, 1, GETVAL), 1));
	ASLEEP(c);
	OK(semop(id, &up, 1));
	EQ(reap(c), 0);
	EQ(semctl(id, 1, GETVAL), 0);
	c = CHILD(ERR(semop(id, &down, 1), EIDRM));
	ASLEEP(c);
	OK(semctl(id, 0, IPC_RMID));
	EQ(reap(c), 0);
	ERR(semop(id, &up, 1), EINVAL);
}

CASE(sysv_msg)
{
	int id = NEED(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	struct {
		long type;
		char text[16];
	} m = {3, "three"}, r;
	OK(msgsnd(id, &m, 6, 0));
	m.type = 1;
	strcpy(m.text, "one");
	OK(msgsnd(id, &m, 4, 0));
	EQ(msgrcv(id, &r, 16, 1, 0), 4);
	STR(r.text, "one");
	ERR(msgrcv(id, &r, 16, 1, IPC_NOWAIT), ENOMSG);
	ERR(msgrcv(id, &r, 2, 0, 0), E2BIG);
	EQ(msgrcv(id, &r, 2, 0, MSG_NOERROR), 2);
	pid_t c = CHILD(EQ(msgrcv(id, &r, 16, 0, 0), 4));
	ASLEEP(c);
	OK(msgsnd(id, &m, 4, 0));
	EQ(reap(c), 0);
	OK(msgctl(id, IPC_RMID, NULL));
	ERR(msgsnd(id, &m, 4, 0), EINVAL);
}

CASE(sem_all_or_nothing)
{
	int id = NEED(semget(IPC_PRIVATE, 3, IPC_CREAT | 0600));
	unsigned short v[3] = {1, 2, 3}, g[3] = {0};
	OK(semctl(id, 0, SETALL, v));
	struct sembuf two[] = {{0, -1, 0}, {1, -5, IPC_NOWAIT}}, sums[] = {{0, -1, 0}, {0, 0, 0}, {0, 4, 0}};
	ERR(semop(id, two, 2), EAGAIN);
	OK(semctl(id, 0, GETALL, g));
	MEM(v, g, sizeof v);
	OK(semop(id, sums, 3));
	EQ(semctl(id, 0, GETVAL), 4);
	EQ(semctl(id, 0, GETPID), getpid());
	struct sembuf far = {3, 1, 0}, high = {2, 32767, 0};
	ERR(semop(id, &far, 1), EFBIG);
	ERR(semop(id, &high, 1), ERANGE);
	ERR(semop(id, two, 0), EINVAL);
	ERR(semop(id, two, 501), E2BIG);
	ERR(semctl(id, 0, SETVAL, 32768), ERANGE);
	ERR(semctl(id, 7, GETVAL), EINVAL);
	struct semid_ds d;
	OK(semctl(id, 0, IPC_STAT, &d));
	EQ(d.sem_nsems, 3);
	EQ(d.sem_perm.mode & 0777, 0600);
	CHECK(d.sem_otime > 0);
	OK(semctl(id, 0, IPC_RMID));
}

CASE(sem_waits)
{
	int id = NEED(semget(IPC_PRIVATE, 1, IPC_CREAT | 0600));
	struct sembuf down = {0, -1, 0}, zero = {0, 0, 0}, up = {0, 1, 0};
	struct timespec t = {0, 20000000}, bad = {0, -1};
	ERR(semtimedop(id, &down, 1, &t), EAGAIN);
	ERR(semtimedop(id, &down, 1, &bad), EINVAL);
	pid_t c = CHILD(OK(semop(id, &down, 1)));
	ASLEEP(c);
	EQ(semctl(id, 0, GETNCNT), 1);
	EQ(semctl(id, 0, GETZCNT), 0);
	OK(semop(id, &up, 1));
	EQ(reap(c), 0);
	EQ(semctl(id, 0, GETNCNT), 0);
	OK(semop(id, &up, 1));
	c = CHILD(OK(semop(id, &zero, 1)));
	ASLEEP(c);
	EQ(semctl(id, 0, GETZCNT), 1);
	OK(semop(id, &down, 1));
	EQ(reap(c), 0);
	OK(semctl(id, 0, IPC_RMID));
}

static void *undoes(void *id)
{
	struct sembuf up = {0, 1, SEM_UNDO};
	OK(semop(*(int *)id, &up, 1));
	return NULL;
}

CASE(sem_undo)
{
	int id = NEED(semget(IPC_PRIVATE, 1, IPC_CREAT | 0600));
	struct sembuf up = {0, 3, SEM_UNDO}, down = {0, -1, SEM_UNDO};
	/* Threads share what they owe: it is paid when the process ends. */
	pid_t c = CHILD(pthread_t t; pthread_create(&t, NULL, undoes, &id); pthread_join(t, NULL);
			EQ(semctl(id, 0, GETVAL), 1); OK(semop(id, &up, 1)); OK(semop(id, &down, 1)); EQ(semctl(id, 0, GETVAL), 3));
	EQ(reap(c), 0);
	EQ(semctl(id, 0, GETVAL), 0);
	/* Setting a value forgets it. */
	c = CHILD(OK(semop(id, &up, 1)); OK(semctl(id, 0, SETVAL, 9)));
	EQ(reap(c), 0);
	EQ(semctl(id, 0, GETVAL), 9);
	OK(semctl(id, 0, IPC_RMID));
}

CASE(ipc_keys)
{
	key_t k = 0x7e570000 + getpid() % 0xffff;
	int id = NEED(semget(k, 2, IPC_CREAT | IPC_EXCL | 0600));
	ERR(semget(k, 2, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
	EQ(semget(k, 0, 0), id);
	ERR(semget(k, 3, 0), EINVAL);
	OK(semctl(id, 0, IPC_RMID));
	ERR(semget(k, 2, 0), ENOENT);
	ERR(semget(k, 0, IPC_CREAT | 0600), EINVAL);
	id = NEED(msgget(k, IPC_CREAT | 0600));
	EQ(msgget(k, 0), id);
	struct msqid_ds d;
	OK(msgctl(id, IPC_STAT, &d));
	EQ(d.msg_perm.__key, k);
	EQ(d.msg_qbytes, 16384);
	d.msg_qbytes = 100;
	OK(msgctl(id, IPC_SET, &d));
	struct { long t; char b[200]; } m = {1, ""};
	ERR(msgsnd(id, &m, 101, IPC_NOWAIT), EAGAIN);
	OK(msgsnd(id, &m, 100, IPC_NOWAIT));
	OK(msgctl(id, IPC_STAT, &d));
	EQ(d.msg_cbytes, 100);
	EQ(d.msg_qnum, 1);
	EQ(d.msg_lspid, getpid());
	OK(msgctl(id, IPC_RMID, NULL));
}

CASE(msg_selection)
{
	int id = NEED(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	struct { long t; char b[8]; } m, r;
	long types[] = {5, 3, 9, 3};
	for (int i = 0; i < 4; i++) {
		m.t = types[i];
		m.b[0] = '0' + i;
		OK(msgsnd(id, &m, 1, 0));
	}
	int n = msgrcv(id, &r, 8, 2, MSG_COPY | IPC_NOWAIT);
	CHECK(n == 1 ? r.t == 9 && r.b[0] == '2' : errno == ENOSYS);
	ERR(msgrcv(id, &r, 8, 0, MSG_COPY), EINVAL);
	EQ(msgrcv(id, &r, 8, -4, 0), 1);
	EQ(r.b[0], '1');
	EQ(msgrcv(id, &r, 8, 5, MSG_EXCEPT), 1);
	EQ(r.t, 9);
	EQ(msgrcv(id, &r, 8, 0, 0), 1);
	EQ(r.t, 5);
	EQ(msgrcv(id, &r, 8, 3, 0), 1);
	m.t = 0;
	ERR(msgsnd(id, &m, 1, 0), EINVAL);
	m.t = 1;
	ERR(msgsnd(id, &m, 8193, 0), EINVAL);
	pid_t c = CHILD(ERR(msgrcv(id, &r, 8, 0, 0), EIDRM));
	ASLEEP(c);
	OK(msgctl(id, IPC_RMID, NULL));
	EQ(reap(c), 0);
}
MAIN
