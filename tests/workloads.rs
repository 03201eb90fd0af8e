//! Real programs: equal output and status natively and on every backend.
//!
//! A test's name is its program and its backend: `bash::kvm`. Each script runs in an empty `$T`.

use trapgate_tests::backend::loud;
use trapgate_tests::{Backend, same_script};

macro_rules! workload {
    ($name:ident, needs [$($tool:expr),*], $text:expr) => {
        mod $name {
            use super::*;
            fn on(backend: Backend) {
                for tool in [$($tool),*] as [&str; _] {
                    if !std::path::Path::new(tool).exists() {
                        loud(&format!("workload {}: NOT RUN: {tool} is not installed", stringify!($name)));
                        return;
                    }
                }
                same_script(stringify!($name), backend, 0, $text);
            }
            #[test]
            fn kvm() {
                on(Backend::Kvm);
            }
            #[test]
            fn ptrace() {
                on(Backend::Ptrace);
            }
        }
    };
}

workload!(coreutils, needs [], r#"
ls -lR /usr/share/doc | sha256sum
ls -la /usr/share/doc/bash
find /usr/share/doc -type f | sort | head -2000 | sha256sum
find /usr/lib/python3 -name '*.py' -size +10k | sort | wc -l
seq 20000 | sort -r | sort -n | sha256sum
seq 1000 | shuf --random-source=/bin/ls | sort -n | tail -3
dd if=/dev/zero of=z bs=64k count=50 2>/dev/null; stat -c '%s' z
dd if=z bs=1000 skip=3 count=7 2>/dev/null | wc -c
tar cf - /usr/share/doc/bash 2>/dev/null | gzip -n | sha256sum
mkdir -p a/b/c; touch a/b/c/f; cp -a a d; mv d e; ln -s b a/l; ls -R a e; rm -r a e
printf 'x\ny\n' | tr a-z A-Z | tee up | od -c; cut -c1 up; wc up
head -c 100000 /dev/zero | md5sum; expr 6 \* 7; date -u -d @86400 +%F
id -u; test -w /tmp && echo writable; readlink -f /bin/sh; timeout 1 sleep 5; echo $?
env -i A=1 env; nice true; nohup true; basename /a/b.c .c; stat -c %a up; chmod 640 up; stat -c %a up
"#);

workload!(bash, needs [], r#"
echo one | cat | rev | tr e E
cat <<E1; cat <<'E2'
here $((6*7))
E1
literal $x
E2
cat <<< string
(sleep .2; echo slow) & (echo fast) & wait; echo joined
p=(); for i in 3 1 2; do (exit $i) & p+=($!); done; n=0; for i in "${p[@]}"; do wait $i; n=$((n+$?)); done; echo sum $n
trap 'echo trapped' USR1; kill -USR1 $$; trap 'echo bye' EXIT
sleep 100 & p=$!; sleep .2; kill $p; wait $p; echo "status $?"
{ sh -c 'kill -9 $$'; } 2>/dev/null; echo $?; false | true; echo ${PIPESTATUS[*]}
diff <(seq 5) <(seq 2 6); (exit 4) & a=$!; (sleep .3; exit 5) & b=$!; wait -n; s=$?; wait -n; echo "wait -n $s $?"; wait -n; echo "none left $?"
seq 3 | while read n; do (echo sub $n; exit $n) | cat; echo ${PIPESTATUS[0]}; done; trap - EXIT; trap 'echo end' EXIT
mapfile -t l < <(printf '%s\n' a b c); echo ${#l[@]}
f() { local v=$1; echo "f $v"; return 3; }; f x; echo $?
exec 5>out; echo five >&5; exec 5>&-; cat out; set -o pipefail; false | true; echo $?
[[ abc =~ b(.) ]] && echo ${BASH_REMATCH[1]}; echo {a..e}; shopt -s nullglob; echo *; cd /; pwd
( ulimit -n 64; ulimit -n ); umask; coproc { cat; }; echo hi >&${COPROC[1]}; read -u ${COPROC[0]} x; echo $x
"#);

workload!(
    busybox,
    needs["/bin/busybox"],
    r#"
busybox sh -c 'for i in 1 2 3; do echo $i; done | busybox wc -l; x=$(busybox seq 5 | busybox tail -1); echo $x; (sleep 0; exit 4); echo $?'
busybox ls -l /etc/passwd; echo a b c | busybox awk '{print $2}'; busybox sed -n 1p /etc/passwd; busybox md5sum /etc/passwd
busybox find /etc -maxdepth 1 -name 'pass*' | busybox sort; busybox vi --help >/dev/null 2>&1; busybox uname
"#
);

workload!(
    python,
    needs["/usr/bin/python3"],
    r#"
cat > t.py <<'E'
import threading, subprocess, mmap, os, signal, socket, asyncio, queue, time, json, hashlib, tempfile
q = queue.Queue()
def w(i):
    for k in range(50): q.put(i * k)
ts = [threading.Thread(target=w, args=(i,)) for i in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
print('threads', sum(q.get() for _ in range(400)))
print(subprocess.run(['sh', '-c', 'cat; exit 3'], input=b'piped', capture_output=True))
print(subprocess.check_output('echo $((1+1))', shell=True, text=True).strip())
try: subprocess.run(['sleep', '10'], timeout=.2)
except subprocess.TimeoutExpired: print('timed out')
m = mmap.mmap(-1, 8192); m[4096:4099] = b'abc'; print(m[4095:4100])
with tempfile.TemporaryFile() as f:
    f.write(b'0' * 10000); f.flush(); mm = mmap.mmap(f.fileno(), 0); mm[5] = 65; print(mm[3:8])
got = []
signal.signal(signal.SIGUSR1, lambda s, f: got.append(s)); os.kill(os.getpid(), signal.SIGUSR1); print(got)
signal.signal(signal.SIGALRM, lambda s, f: got.append(s)); signal.setitimer(signal.ITIMER_REAL, .05); signal.pause(); print(got)
srv = socket.socket(); srv.bind(('127.0.0.1', 0)); srv.listen()
def serve():
    c, _ = srv.accept()
    while d := c.recv(1000): c.sendall(d.upper())
    c.close()
t = threading.Thread(target=serve); t.start()
c = socket.create_connection(srv.getsockname()); c.sendall(b'hello'); print(c.recv(100)); c.close(); t.join()
async def main():
    async def h(r, w): w.write((await r.readline())[::-1]); await w.drain(); w.close()
    s = await asyncio.start_server(h, '127.0.0.1', 0)
    async def one(i):
        r, w = await asyncio.open_connection(*s.sockets[0].getsockname()); w.write(b'%d\n' % i); x = await r.read(); w.close(); return x
    print(await asyncio.gather(*[one(i) for i in range(5)]))
    p = await asyncio.create_subprocess_exec('echo', 'sub', stdout=asyncio.subprocess.PIPE); print((await p.communicate())[0], p.returncode)
    await asyncio.sleep(.01)
asyncio.run(main())
pid = os.fork()
if pid == 0: os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), hashlib.sha256(b'x' * 100000).hexdigest()[:16], json.dumps({'a': [1, 2]}))
print(sorted(os.listdir('.')), os.path.exists('/proc/self/exe'), len(os.urandom(8)), os.cpu_count() > 0)
E
/usr/bin/python3 t.py
"#
);

workload!(
    python_multiprocessing,
    needs["/usr/bin/python3"],
    r#"
cat > t.py <<'E'
import multiprocessing as mp
def sq(x): return x * x
def put(q, v): q.put(v)
if __name__ == '__main__':
    for how in ('fork', 'spawn'):
        c = mp.get_context(how)
        with c.Pool(3) as p: print(how, p.map(sq, range(10)))
        q = c.Queue(); ps = [c.Process(target=put, args=(q, i)) for i in range(3)]
        [p.start() for p in ps]; print(sorted(q.get() for _ in ps)); [p.join() for p in ps]; print([p.exitcode for p in ps])
        v = c.Value('i', 5); print(v.value); e = c.Event(); e.set(); print(e.wait(1))
E
/usr/bin/python3 t.py
"#
);

workload!(
    perl,
    needs["/usr/bin/perl"],
    r#"
perl -e 'my %h; $h{$_ % 7} += $_ for 1..1000; print join(",", map {"$_=$h{$_}"} sort keys %h), "\n"'
perl -e '$SIG{ALRM}=sub{die "alarm\n"}; eval{alarm 1; select(undef,undef,undef,9)}; print $@; my $p=fork; if(!$p){exit 5} waitpid $p,0; print $?>>8,"\n"; print `echo sub`; open my $f,"<","/etc/passwd"; print scalar(<$f>)'
perl -MPOSIX -e 'pipe(my $r,my $w); if(!fork){print $w "child\n"; exit} close $w; print <$r>; wait; print POSIX::WEXITSTATUS($?),"\n"'
"#
);

workload!(
    sqlite,
    needs["/usr/bin/sqlite3"],
    r#"
sqlite3 d.db 'pragma journal_mode=wal; create table t(a integer primary key, b text); with recursive c(x) as (select 1 union all select x+1 from c where x<2000) insert into t select x, hex(x*7919) from c; create index i on t(b);'
sqlite3 d.db 'select count(*), sum(a), max(b) from t; begin; delete from t where a%3=0; rollback; select count(*) from t; pragma integrity_check; vacuum;'
sqlite3 d.db .dump | sha256sum; ls
"#
);

workload!(
    git,
    needs["/usr/bin/git"],
    r#"
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
g=/usr/bin/git; $g init -q -b main r && cd r
for i in 1 2 3; do seq $((i*100)) > f$i; $g add . && $g commit -q -m "commit $i"; done
$g log --oneline --stat; $g status --short; echo x >> f1; $g diff | tail -3; $g stash -q; $g checkout -q -b side HEAD~1; $g merge -q main; $g branch
cd ..; $g clone -q r c 2>&1; cd c && $g log --format=%H && $g fsck 2>&1; $g gc -q; $g count-objects -v | grep -E 'packs|in-pack'
"#
);

workload!(gcc_and_make, needs ["/usr/bin/gcc", "/usr/bin/make"], r#"
cat > a.c <<'E'
#include <stdio.h>
#include <math.h>
int f(int);
int main(void) { printf("%d %.6f\n", f(20), sqrt(2)); return 3; }
E
echo 'int f(int n) { return n < 2 ? n : f(n-1) + f(n-2); }' > b.c
printf 'all: p q\np: a.o b.o\n\tgcc -o $@ $^ -lm\nq: a.o b.o\n\tgcc -static -o $@ $^ -lm\n%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\nclean:\n\trm -f *.o\n' > Makefile
make -s -j2 && ./p; echo $?; ./q; echo $?; make -s clean; ls; gcc -c nope.c 2>&1; echo $?
"#);

workload!(
    node,
    needs["/usr/bin/node"],
    r#"
cat > s.js <<'E'
const http = require('http'), cp = require('child_process'), fs = require('fs');
const s = http.createServer((q, r) => { let b = ''; q.on('data', d => b += d); q.on('end', () => r.end(q.method + ' ' + q.url + ' ' + b)); });
s.listen(0, '127.0.0.1', () => {
  let left = 5, out = [];
  for (let i = 0; i < 5; i++) {
    const c = http.request({ port: s.address().port, host: '127.0.0.1', method: 'POST', path: '/' + i }, r => {
      let b = ''; r.on('data', d => b += d); r.on('end', () => { out.push(r.statusCode + ' ' + b); if (!--left) { console.log(out.sort().join('\n')); s.close(); after(); } }); });
    c.end('body' + i);
  }
});
function after() { console.log(cp.execSync('echo child').toString().trim()); fs.writeFileSync('f', 'x'.repeat(1e5)); fs.promises.readFile('f').then(b => console.log(b.length)); setTimeout(() => console.log('timer'), 1000); }
E
node s.js
"#
);

workload!(
    go,
    needs["/usr/bin/go"],
    r#"
export GOCACHE=$T/c GOFLAGS=-mod=mod GO111MODULE=off
cat > m.go <<'E'
package main
import ("fmt"; "sync"; "os/exec"; "net"; "io")
func main() {
	var wg sync.WaitGroup; var mu sync.Mutex; n := 0
	for i := 0; i < 100; i++ { wg.Add(1); go func(i int) { defer wg.Done(); mu.Lock(); n += i; mu.Unlock() }(i) }
	wg.Wait(); fmt.Println(n)
	o, e := exec.Command("echo", "sub").Output(); fmt.Print(string(o), e, "\n")
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go func() { c, _ := l.Accept(); io.Copy(c, c); c.Close() }()
	c, _ := net.Dial("tcp", l.Addr().String()); c.Write([]byte("echo")); c.(*net.TCPConn).CloseWrite(); b, _ := io.ReadAll(c); fmt.Println(string(b))
}
E
go build -o m m.go && ./m
"#
);

workload!(
    go_static,
    needs["/usr/bin/go"],
    r#"
export GOCACHE=$T/c GO111MODULE=off CGO_ENABLED=0
printf 'package main\nimport ("fmt"; "os"; "time")\nfunc main() { c := make(chan int); go func() { time.Sleep(time.Millisecond); c <- 6*7 }(); fmt.Println(<-c, len(os.Args)); os.Exit(5) }\n' > m.go
go build -o m m.go; ./m a b; echo $?; ldd m 2>&1 || true
"#
);

/// A statically linked Rust program, built by the toolchain that builds Trapgate.
mod rust_static {
    use super::*;
    const SOURCE: &str = r#"
use std::{collections::BTreeMap, io::{Read, Write}, net, process, sync::mpsc, thread};
fn main() {
    let (tx, rx) = mpsc::channel();
    let all: Vec<_> = (0..8).map(|i| { let tx = tx.clone(); thread::spawn(move || tx.send(i * i).unwrap()) }).collect();
    all.into_iter().for_each(|t| t.join().unwrap());
    drop(tx);
    println!("{}", rx.iter().sum::<i32>());
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = thread::spawn(move || { let (mut c, _) = listener.accept().unwrap(); let mut s = String::new(); c.read_to_string(&mut s).unwrap(); s });
    net::TcpStream::connect(at).unwrap().write_all(b"over loopback").unwrap();
    println!("{}", server.join().unwrap());
    let map: BTreeMap<_, _> = "static rust program".chars().map(|c| (c, c as u32)).collect();
    println!("{map:?}");
    let out = process::Command::new("/bin/echo").arg("child").output().unwrap();
    print!("{}", String::from_utf8_lossy(&out.stdout));
    assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
    process::exit(9);
}
"#;
    fn on(backend: Backend) {
        let dir = trapgate_tests::guest::guests_dir().join("rust");
        std::fs::create_dir_all(&dir).unwrap();
        // Both tests may build at once: each its own file.
        let (source, program) = (dir.join(format!("{backend}.rs")), dir.join(backend.name()));
        std::fs::write(&source, SOURCE).unwrap();
        let built = std::process::Command::new("rustc")
            .args(["--edition=2024", "--crate-name=guest", "-Ctarget-feature=+crt-static", "-o"])
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(built.success(), "rustc fails");
        let script = format!("{} 2>/dev/null; echo $?", program.display());
        same_script(&format!("rust_static on {backend}"), backend, 0, &script);
    }
    #[test]
    fn kvm() {
        on(Backend::Kvm);
    }
    #[test]
    fn ptrace() {
        on(Backend::Ptrace);
    }
}

workload!(
    readme,
    needs["/usr/bin/python3"],
    r#"
for f in /proc/self/fd/*; do [ ${f##*/} -lt 3 ] || eval "exec ${f##*/}>&-"; done  # the harness's own
uname -s; /usr/bin/python3 -c 'print(6*7)' | tee x; wc -c x; ls /proc/self/fd | wc -l
"#
);
