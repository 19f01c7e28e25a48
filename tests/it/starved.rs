//! A running instance that may open no more files for a while: neither logs nor connections.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::run::{Instance, Site, lines, list, request, until};

/// Lets the process open no file with a number of this or above; returns what the limit was.
fn limit_files(instance: &Instance, number: Option<u64>) -> Option<u64> {
    let pid = Some(Pid::from_child(&instance.child));
    let limit = |current, maximum| Rlimit { current, maximum };
    let own = rustix::process::getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, limit(number, own.maximum)).unwrap().current
}

#[test]
fn without_files_it_waits_and_loses_nothing() {
    let site = Site::new();
    site.append("logs/audit.log", &lines(0..50));
    let instance = site.start();
    until("the log", || site.count("events.jsonl") == 50);
    let before = limit_files(&instance, Some(3));
    // The file that comes after a rotation cannot be opened, nor can a connection be accepted.
    let rotated = site.path("logs/audit-2026-11-22T00-00-00.000.log");
    std::fs::rename(site.path("logs/audit.log"), rotated).unwrap();
    site.append("logs/audit.log", &lines(50..100));
    let address = instance.webhook.clone();
    let posting = std::thread::spawn(move || {
        let body = list(100..150);
        let head = format!("POST /audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", body.len());
        let rest = "Content-Type: application/json\r\nConnection: close\r\n\r\n";
        request(&address, &format!("{head}{rest}{body}")).0
    });
    let told = instance.line("cannot accept connections");
    assert!(told["error"].as_str().unwrap().contains("Too many open files"), "{told}");
    limit_files(&instance, before);
    assert_eq!(posting.join().unwrap(), 200);
    until("all of it", || site.count("events.jsonl") == 150);
    assert_eq!(instance.end(), Some(0));
    assert_eq!(site.count("events.jsonl"), 150);
}
