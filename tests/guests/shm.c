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
MAIN
