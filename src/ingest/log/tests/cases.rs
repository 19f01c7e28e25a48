//! Everything that is known to go wrong with files being written, one case each: a script, the
//! lines that become durable in their order, the notices (with the bytes that are lost).

use crate::ingest::log::tests::bench::Bench;

/// Name, script, lines, notices.
type Case = (&'static str, &'static str, &'static str, &'static str);

const ROTATION: &[Case] = &[
    ("reads what is there and what comes", "w a b; read; w c; read", "a b c", ""),
    ("waits for a file", "read; w a; read", "a", ""),
    ("rename while reading", "w a; read; w b; rotate; w c; read; w d; read", "a b c d", ""),
    (
        "rename between two looks, many times",
        "w a; step; w b; rotate; w c; rotate; w d; rotate; w e; read",
        "a b c d e",
        "",
    ),
    (
        "between rename and create",
        "w a; read; w b; reopen; mv audit.log x; mv x @0; read",
        "",
        "never",
    ),
    ("rotation while stopped", "w a; read; w b; stop; w c; rotate; w d; read", "a b c d", ""),
    (
        "many rotations while stopped",
        "w a; read; stop; w b; rotate; w c; rotate; w d; rotate; w e; read",
        "a b c d e",
        "",
    ),
    ("backups at the first start", "w a; rotate; w b; rotate; w c; read", "a b c", ""),
    (
        "backups at the first start, compressed",
        "compress; w a; rotate; w b; rotate; w c; mill; read",
        "a b c",
        "",
    ),
    (
        "from the end",
        "from-end; w a; rotate; w b; part c; read; rest c; w d; rotate; w e; read",
        "c d e",
        "",
    ),
    (
        "deleted before it was read",
        "w a; read; stop; w b; rotate; w c; rotate; rm @2; w d; read",
        "a b d",
        "",
    ),
    (
        "seen, and deleted while stopped",
        "w a; read; hold; w b; rotate; step; w c; step; stop; rm @1; answer; read",
        "a c",
        "gap",
    ),
    (
        "all that was open is gone",
        "keep 1; w a; read; stop; w b; rotate; w c; rotate; w d; rotate; mill; w e; read",
        "a d e",
        "gap",
    ),
    (
        "deleted while it is held open",
        "w a; rotate; w b; rotate; step; rm @1; rm @2; read",
        "a b",
        "",
    ),
    (
        "two rotations in a millisecond",
        "w a; read; w b; rotate; w c; step; rotate-at-once; w d; read",
        "a b c d",
        "",
    ),
    (
        "a live file that is unlinked",
        "w a; read; rm audit.log; read; w b; read; w c; read",
        "a b c",
        "unlinked",
    ),
    (
        "unlinked, and the writer starts anew",
        "w a; read; rm audit.log; w b; reopen; w c; read",
        "a b c",
        "unlinked",
    ),
    (
        "renamed by logrotate, written on",
        "w a; read; mv audit.log audit.log.1; put audit.log; \
        w b; read; w c; mv audit.log.1 audit.log.2; read; w d; read",
        "a b c d",
        "",
    ),
    (
        "renamed by logrotate while stopped",
        "w a; read; stop; w b; mv audit.log audit.log.1; put audit.log c; read",
        "a b c",
        "",
    ),
    (
        "logrotate counts up and compresses",
        "w a; read; stop; w b; mv audit.log audit.log.1; \
        gzip audit.log.1; mv audit.log.1.gz audit.log.2.gz; rm audit.log.1; put audit.log.1 c; \
        put audit.log d; read",
        "a b c d",
        "",
    ),
    (
        "logrotate on top of lumberjack",
        "w a; rotate; w b; read; stop; w c; rotate; \
        mv @2 audit-2026-01-01T00-01-59.000.log.1; w d; read",
        "a b c d",
        "",
    ),
    (
        "the writer starts anew and appends",
        "w a; reopen; w b; read; reopen; w c; read",
        "a b c",
        "",
    ),
    ("two writers", "w a; add audit.log x; read; w b; add audit.log y; read", "a b", "never"),
    (
        "foreign files",
        "put audit-foo.log x; put audit-2026.log.1 y; put audit.log.bak z; w a; read",
        "a",
        "",
    ),
];

const COMPRESSION: &[Case] = &[
    (
        "half read, rotated and compressed while stopped",
        "compress; w a; read; stop; w b; rotate; \
        w c; mill; read",
        "a b c",
        "",
    ),
    (
        "compressed at every stage",
        "compress; w a; read; w b; rotate; mill1; step; mill1; step; \
        mill1; step; mill1; w c; read",
        "a b c",
        "",
    ),
    (
        "plain beside a torn copy",
        "compress; w a; rotate; mill1; mill1; reopen; w b; read; mill; read",
        "a b",
        "",
    ),
    ("plain beside a whole copy", "w a; rotate; gzip @1; w b; read", "a b", ""),
    (
        "nothing but a torn copy",
        "w a b c d e f g h; rotate; gzip @1; rm @1; spoil @1.gz 9; w z; \
        read",
        "a b c d e f g h z",
        "unreadable",
    ),
    (
        "a copy that is still being made",
        "w a; rotate; gzip @1; mv @1.gz y; cp y @1.gz; \
        trunc @1.gz 30; rm @1; step; cp y @1.gz; w b; read",
        "a b",
        "",
    ),
    (
        "a torn copy that is mended later",
        "w a; rotate; gzip @1; cp @1.gz y; rm @1; trunc @1.gz 30; \
        w b; read; pass 5; cp y @1.gz; read",
        "?{\"kind\":\"Event\",\"au b a",
        "unreadable",
    ),
    (
        "members one behind the other",
        "gunzip-by-hand audit.log.1.gz a b; \
        gunzip-by-hand audit.log.2.gz c; w d; read",
        "c a b d",
        "",
    ),
    ("plain under a compressed name", "put audit.log.1.gz a; w b; read", "a b", ""),
    (
        "read to its end, then compressed, then restarted",
        "compress; w a; rotate; w b; read; mill; \
        read; stop; read",
        "a b",
        "",
    ),
    (
        "read to its end, compressed while stopped",
        "compress; w a; rotate; w b; read; stop; mill; \
        w c; read",
        "a b c",
        "",
    ),
];

const TRUNCATION: &[Case] = &[
    (
        "copied and truncated, appending",
        "w a; reopen; w b; read; w c; cp audit.log audit.log.1; \
        trunc audit.log 0; w d; read",
        "a b c d",
        "",
    ),
    (
        "copied and truncated, with a hole",
        "rotate; w a b; read; w c; cp audit.log audit.log.1; \
        trunc audit.log 0; w d; read",
        "a b c d",
        "",
    ),
    (
        "copied, looked at, truncated",
        "w a; reopen; w b; read; w c; cp audit.log audit.log.1; read; \
        trunc audit.log 0; read; w d; read",
        "a b c d",
        "",
    ),
    (
        "copied in two parts",
        "w a b; read; w c d; cp audit.log audit.log.1; trunc audit.log.1 50; \
        read; cp audit.log audit.log.1; read; reopen; trunc audit.log 0; w e; read",
        "a b c d e",
        "",
    ),
    (
        "copied and truncated while stopped",
        "w a; read; stop; w b; reopen; \
        cp audit.log audit.log.1; trunc audit.log 0; w c; read",
        "a b c",
        "",
    ),
    (
        "copied, compressed and truncated",
        "w a; read; w b; reopen; cp audit.log audit.log.1; \
        gzip audit.log.1; rm audit.log.1; trunc audit.log 0; w c; read",
        "a b c",
        "",
    ),
    (
        "truncated without a copy",
        "w a; reopen; w b; read; trunc audit.log 0; w c; read",
        "a b c",
        "truncated",
    ),
    (
        "truncated before it was read",
        "w a; reopen; w b; read; hold; w c; step; stop; \
        trunc audit.log 0; w d; answer; read",
        "a b d",
        "truncated",
    ),
    (
        "to exactly the old size",
        "w a b; read; reopen; trunc audit.log 0; w c d; read",
        "a b c d",
        "truncated",
    ),
    (
        "to exactly the old size while stopped",
        "w a b; read; stop; reopen; trunc audit.log 0; \
        w c d; read",
        "a b c d",
        "truncated",
    ),
    (
        "to a shorter one",
        "w a b; read; reopen; trunc audit.log 100; raw \\n; read",
        "never",
        "never",
    ),
    (
        "and written beyond the old size",
        "w a; read; reopen; trunc audit.log 0; w b c d; read",
        "a b c d",
        "truncated",
    ),
    (
        "and written beyond it while stopped",
        "w a; read; stop; reopen; trunc audit.log 0; w b c d; \
        read",
        "a b c d",
        "truncated",
    ),
];

const INODES: &[Case] = &[
    (
        "a new file in the inode of a deleted one",
        "keep 1; w a; rotate; w b; read; rotate; mill; \
        w c; read; rotate; mill; w d; read",
        "a b c d",
        "",
    ),
    (
        "smaller, while stopped",
        "w a b; read; rotate; w x; read; stop; rm @1; rotate; w c; read",
        "a b x c",
        "",
    ),
    (
        "larger, while stopped",
        "w a; rotate; w b; read; stop; rm @1; rotate; w c d e; read",
        "a b c d e",
        "",
    ),
    (
        "with the same first line",
        "w a b; read; stop; rm audit.log; reopen; w a c; read",
        "a b a c",
        "truncated",
    ),
    (
        "another device after a reboot",
        "w a; rotate; w b; read; stop; device 77; w c; read",
        "a b c",
        "",
    ),
    ("a hard link to the live file", "w a; ln audit.log audit.log.1; read; w b; read", "a b", ""),
    (
        "a link in place of the file",
        "sym real.log audit.log; put real.log a; read; \
        add real.log b; read; mv real.log real.log.1; put real.log c; read",
        "a b c",
        "",
    ),
];

const LINES: &[Case] = &[
    ("a line in two writes", "part a; read; read; rest a; w b; read", "a b", ""),
    (
        "a part, then another process's line",
        "part a; reopen; w b; read; w c; read",
        "?{\"kind\":\"Event\",\"auditID\":\"a\",\"pad\"{\"k c",
        "",
    ),
    (
        "a part at the end of a rotated file",
        "w a; part b; read; rotate; w c; read",
        "a ?{\"kind\":\"Event\",\"auditID\":\"b\",\"pad\" c",
        "",
    ),
    (
        "a part, compressed",
        "compress; w a; part b; rotate; mill; w c; read",
        "a ?{\"kind\":\"Event\",\"auditID\":\"b\",\"pad\" c",
        "",
    ),
    (
        "empty lines and others",
        "raw \\r\\n; raw \\n; raw null\\n; raw []\\n; w a; read",
        "?\r ?null ?[] a",
        "",
    ),
    ("NULs between lines", "w a; nul 5000; w b; read", "a b", ""),
    (
        "NULs inside a line",
        "part a; nul 3; rest a; w b; read",
        "?{\"kind\":\"Event\",\"auditID\":\"a\",\"pad\" ?:\"..................................... b",
        "",
    ),
    ("NULs at the end", "w a; nul 100; read; w b; read", "a b", ""),
    ("short reads", "short-reads; w a b; read; w c; rotate; w d; read", "a b c d", ""),
    (
        "a frame in two parts",
        "raw 2026-01-01T00:00:00.0Z stdout P x\\n; read; \
        raw 2026-01-01T00:00:00.0Z stdout F y\\n; read",
        "?2026-01-01T00:00:00.0Z stdout P x ?2026-01-01T00:00:00.0Z stdout F y",
        "",
    ),
];

const STATE: &[Case] = &[
    ("restarted without a change", "w a; rotate; w b; read; stop; read; stop; read", "a b", ""),
    (
        "checkpoints of zeros",
        "w a; rotate; w b; read; stop; checkpoints zero; w c; read",
        "a b a b c",
        "unreadable",
    ),
    ("torn checkpoints", "w a; read; stop; checkpoints torn; w b; read", "a a b", "unreadable"),
    (
        "checkpoints of a later release",
        "w a; read; stop; checkpoints newer; read",
        "a a",
        "unreadable",
    ),
    (
        "garbage for checkpoints",
        "w a; read; stop; checkpoints garbage; read; stop; read",
        "a a",
        "unreadable",
    ),
    (
        "checkpoints of a backup",
        "w a; read; save; w b; rotate; w c; read; stop; restore; w d; read",
        "a b c b c d",
        "",
    ),
    (
        "checkpoints beyond the data",
        "w a b c; read; stop; reopen; rm audit.log; w a; read",
        "a b c a",
        "truncated",
    ),
    ("no checkpoints", "w a; read; stop; forget; read", "a a", ""),
    ("refused", "w a; read; refuse 1; w b; read; w c; read", "a b c", ""),
    ("refused for long", "refuse 9; w a; rotate; w b; rotate; w c; read; read", "a b c", ""),
    (
        "refused, and gone meanwhile",
        "w a; refuse 3; step; w b; rotate; step; rm @1; w c; read",
        "a b c",
        "",
    ),
    (
        "killed with batches under way",
        "w a; read; hold; w b; step; w c; rotate; step; w d; step; \
        stop; answer; read",
        "a b c d",
        "",
    ),
    ("answered late", "hold; w a; step; w b; step; w c; rotate; step; answer; read", "a b c", ""),
    ("EIO", "w a; read; fail read audit.log 5 4; w b; read; pass 9; read", "a b", "unreadable"),
    ("EIO for a moment", "w a; read; fail read audit.log 5 1; w b; read", "a b", ""),
    (
        "EIO, and others go on",
        "w a; rotate; w b; fail read @1 5 9999; read; heal; pass 40; read",
        "b a",
        "unreadable",
    ),
    ("no more files", "w a; rotate; w b; fail open * 24 2; read", "a b", ""),
    (
        "no more files for long",
        "fail open * 24 9999; w a; read; heal; pass 40; read",
        "a",
        "unreadable",
    ),
    (
        "permission revoked at rotation",
        "w a; read; stop; w b; rotate; fail open audit 13 9999; \
        w c; read; heal; pass 40; read",
        "a b c",
        "unreadable unreadable",
    ),
    (
        "the directory cannot be read",
        "w a; read; fail list * 5 9999; w b; rotate; w c; read; heal; \
        pass 40; read",
        "a b c",
        "unreadable",
    ),
    (
        "the mount is gone and comes again",
        "w a; rotate; w b; read; stop; unmount; read; mount; \
        w c; read",
        "a b c",
        "",
    ),
    (
        "the mount is gone while running",
        "w a; rotate; w b; read; unmount; read; mount; w c; read",
        "a b c",
        "",
    ),
    ("silence", "silent-after 60; w a; read; pass 61; read; w b; read", "a b", "silent resumed"),
];

const SEVERAL: &[Case] = &[
    (
        "a pattern that matches rotated files too",
        "follow *.log; w a; rotate; w b; read; w c; \
        rotate; w d; read",
        "a b c d",
        "",
    ),
    (
        "a pattern of a runtime's files",
        "follow ?.log; put 0.log.20260101-000000 a; put 0.log b; \
        put 1.log c; read; pass 6; put 2.log d; read; rm 0.log; read",
        "a b c d",
        "never",
    ),
    (
        "a log that a pattern found is deleted while stopped",
        "follow ?.log; put 0.log a; put 1.log b; \
        read; stop; rm 0.log; read",
        "a b",
        "gap",
    ),
];

fn check(name: &str, cases: &[Case]) {
    for (case, script, lines, notices) in cases {
        let mut bench = Bench::new(name);
        bench.run(script);
        let found = bench.notices.iter().map(|notice| notice.split(':').next().unwrap());
        let found: Vec<&str> = found.collect();
        assert_eq!(bench.tokens(), *lines, "{case}: {script}");
        assert_eq!(found.join(" "), *notices, "{case}: {script}\n{:#?}", bench.texts);
    }
}

#[test]
fn rotation() {
    check("audit.log", ROTATION);
}

#[test]
fn compression() {
    check("audit.log", COMPRESSION);
}

#[test]
fn truncation() {
    check("audit.log", TRUNCATION);
}

#[test]
fn inodes() {
    check("audit.log", INODES);
}

#[test]
fn lines() {
    check("audit.log", LINES);
}

#[test]
fn state() {
    check("audit.log", STATE);
}

#[test]
fn several_files() {
    check("audit.log", SEVERAL);
}

#[test]
fn names_of_all_kinds() {
    for name in ["audit", "kube-audit.json", "a.b.log", "audit-1.log"] {
        check(
            name,
            &[
                ("rename", "w a; read; w b; rotate; w c; rotate; w d; read", "a b c d", ""),
                (
                    "while stopped",
                    "compress; w a; read; stop; w b; rotate; w c; mill; read",
                    "a b c",
                    "",
                ),
            ],
        );
    }
}
