/* xattr(7): getxattr(2), setxattr(2), listxattr(2), removexattr(2). */
#include "t.h"
#include <sys/xattr.h>

CASE(refusals)
{
	char b[64];
	put("f", "");
	ERR(getxattr("f", "user.none", b, sizeof b), ENODATA);
	ERR(getxattr("none", "user.x", b, sizeof b), ENOENT);
	ERR(getxattr("f", "bogus.x", b, sizeof b), EOPNOTSUPP);
	ERR(setxattr("f", "bogus.x", "v", 1, 0), EOPNOTSUPP);
	ERR(getxattr("f", "", b, sizeof b), ERANGE);
	ERR(setxattr("f", "user.x", "v", 1, 99), EINVAL);
	ERR(fgetxattr(99, "user.x", b, sizeof b), EBADF);
	ERR(setxattr("f", "user.x", "v", 70000, 0), E2BIG);
	ERR(removexattr("f", "user.none"), ENODATA);
	char n[300];
	memset(n, 'n', 299);
	memcpy(n, "user.", 5);
	n[299] = 0;
	ERR(setxattr("f", n, "v", 1, 0), ERANGE);
}

CASE(posix_acls_absent)
{
	char b[64];
	put("f", "");
	/* What ls -l and cp -p ask for every file. */
	errno = 0;
	ssize_t n = getxattr("f", "system.posix_acl_access", b, sizeof b);
	CHECK(n == -1 && (errno == ENODATA || errno == EOPNOTSUPP));
	n = lgetxattr("f", "security.capability", b, sizeof b);
	CHECK(n == -1 && (errno == ENODATA || errno == EOPNOTSUPP));
	CHECK(listxattr("f", b, sizeof b) >= 0 || errno == EOPNOTSUPP);
	CHECK(listxattr("/proc/self/status", b, sizeof b) >= 0 || errno == EOPNOTSUPP);
}
MAIN
