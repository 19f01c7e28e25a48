//! `kubewitness run` as a user has it: rates, acknowledgement, idle cost and memory of the release
//! binary over loopback, each beside its floor in the same run. benches/README.md says what each
//! means.

mod living;
mod replaying;
mod ruleset;
mod traffic;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use kubewitness::alert::time::EventTime;
use kubewitness::clock::Stopwatch;

use crate::living::client::{Body, Client};
use crate::living::{Instance, pause};
use crate::replaying::replay;
use crate::traffic::Traffic;

/// Events in a POST: `--audit-webhook-batch-max-size`.
const BATCH: usize = 400;

/// What bodies are made of; more would only fill the caches.
const BODIES_BYTES: u64 = 32_000_000;

/// How often the log is read.
const ROUNDS: usize = 3;

/// One kube-apiserver's ceiling: ten batches a second.
const POSTS: u32 = 300;
const POST_EVERY: Duration = Duration::from_millis(100);

/// How the sustained rate is measured.
const CONNECTIONS: u32 = 10;
const SUSTAINED: Duration = Duration::from_secs(20);

const IDLE: Duration = Duration::from_secs(20);

/// How much is put in the way of a sink that does not answer, where the environment says nothing.
const BACKLOG_BYTES: u64 = 2_000_000_000;

fn main() {
    let traffic = Traffic::open();
    let bodies = Body::all(&traffic.head(BODIES_BYTES), BATCH);
    header(&traffic, &bodies);
    log_to_file(&traffic);
    webhook(&bodies);
    idle();
    backlog(&bodies);
    println!("load average at the end: {}", load());
}

fn header(traffic: &Traffic, bodies: &[Body]) {
    let bytes: usize = bodies.iter().map(Body::len).sum();
    println!("date       {}", EventTime(kubewitness::clock::now_us()));
    println!("load       {}", load());
    println!("input      {}, {:.1} MB", traffic.name(), traffic.bytes() as f64 / 1e6);
    println!("a POST     {BATCH} events, {:.0} KB\n", bytes as f64 / 1e3 / bodies.len() as f64);
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// A sink that takes everything, or alerts only.
fn file_sink(dir: &Path, records: &str) -> String {
    let path = dir.join("out.jsonl");
    format!("  - {{type: file, name: out, records: [{records}], path: {}}}", path.display())
}

/// Log file, all rules, spool with fsync, file sink; beside replay of the same file.
fn log_to_file(traffic: &Traffic) {
    let engine = ruleset::compile(ruleset::shipped_rules());
    let kinds = ["events, alerts", "alerts"];
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let floor = replay(&ruleset::afresh(&engine), traffic.path(), 2);
        let costs = kinds.map(|records| log_once(traffic, records, floor.events));
        rounds.push((floor, costs));
    }
    let megabytes = traffic.bytes() as f64 / 1e6;
    let row = |name: &str, cpu: f64, wall: f64| {
        let rate = megabytes / cpu;
        println!("{name:<44}{cpu:>8.2}{rate:>9.0}{wall:>9.2}{:>9.0}", megabytes / wall);
    };
    println!("{:<44}{:>8}{:>9}{:>9}{:>9}", "", "CPU s", "MB/CPU s", "wall s", "MB/s");
    let floor = |of: fn(&replaying::Replayed) -> Duration| {
        median(rounds.iter().map(|(floor, _)| of(floor).as_secs_f64()))
    };
    row("replay, 2 threads, no spool", floor(|one| one.cpu), floor(|one| one.wall));
    for (place, records) in kinds.iter().enumerate() {
        let of = |part: fn(&(Duration, Duration)) -> Duration| {
            median(rounds.iter().map(|(_, costs)| part(&costs[place]).as_secs_f64()))
        };
        row(&format!("log, all rules, spool; file: {records}"), of(|one| one.0), of(|one| one.1));
        let ratio = median(
            rounds
                .iter()
                .map(|(floor, costs)| floor.cpu.as_secs_f64() / costs[place].0.as_secs_f64()),
        );
        println!("{:<44}{ratio:>8.2}  at least 0.5", "  its rate / replay's, by CPU time");
    }
    println!();
}

/// What it costs to take a log and to deliver of it what a sink asks for, in CPU time; on the wall
/// from the moment at which the log is there until all of it is in the spool.
fn log_once(traffic: &Traffic, records: &str, events: u64) -> (Duration, Duration) {
    let dir = directory();
    let copied = dir.path().join("copy");
    std::fs::copy(traffic.path(), &copied).expect("the disk has room");
    let instance = Instance::start(dir.path(), &file_sink(dir.path(), records));
    // What a start costs is no part of it.
    pause(Duration::from_secs(1));
    let (started, clock) = (instance.cpu(), Stopwatch::start());
    std::fs::rename(&copied, dir.path().join("audit.log")).expect("same directory");
    instance.stored(events);
    let wall = clock.elapsed();
    instance.delivered(records);
    (instance.cpu() - started, wall)
}

/// The acknowledgement at one API server's ceiling, and the rate that ten connections get.
fn webhook(bodies: &[Body]) {
    let dir = directory();
    let instance = Instance::start(dir.path(), &file_sink(dir.path(), "events, alerts"));
    let (mut acks, mut syncs) = paced(&instance, bodies, dir.path());
    memory(&instance, "at 4,000 events/s");
    let (ack, sync) = (percentiles(&mut acks), percentiles(&mut syncs));
    println!("{:<44}{:>8}{:>9}{:>9}", format!("{POSTS} POSTs, ms"), "p50", "p99", "most");
    let row = |name: &str, [p50, p99, most]: [f64; 3]| {
        println!("{name:<44}{p50:>8.1}{p99:>9.1}{most:>9.1}");
    };
    row("write and fdatasync of as many bytes", sync);
    row("POST at 4,000 events/s to its answer", ack);
    let bound = 3.0 * sync[1] + 10.0;
    println!("{:<44}{:>8}{:>9.1}\n", "  wanted: 3 x that p99 + 10 ms", "", bound);
    sustained(&instance, bodies);
    pause(Duration::from_secs(10));
    memory(&instance, "behind it, 10 s later");
}

/// Posts at a steady rate, each on time whatever became of those before; syncs in between.
fn paced(instance: &Instance, bodies: &[Body], dir: &Path) -> (Vec<Duration>, Vec<Duration>) {
    let (acks, clients) = (Mutex::new(Vec::new()), Mutex::new(Vec::<Client>::new()));
    let mut bodies = bodies.to_vec();
    let mut syncs = Vec::new();
    let mut file = File::create(dir.join("floor")).expect("a file can be made");
    let bytes = vec![0x5a; bodies[0].len()];
    std::thread::scope(|scope| {
        let clock = Stopwatch::start();
        let mut counter = 0;
        let (clients, acks) = (&clients, &acks);
        for number in 0..POSTS {
            let place = number as usize % bodies.len();
            bodies[place].renew(1, &mut counter);
            let body = bodies[place].clone();
            pause((POST_EVERY * number).saturating_sub(clock.elapsed()));
            scope.spawn(move || {
                let free = lock(clients).pop();
                let mut client = free.unwrap_or_else(|| Client::connect(&instance.webhook));
                let (status, took) = client.post(&body);
                assert_eq!(status, 200);
                lock(acks).push(took);
                lock(clients).push(client);
            });
            pause((POST_EVERY * number + POST_EVERY / 2).saturating_sub(clock.elapsed()));
            let sync = Stopwatch::start();
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("the disk has room");
            syncs.push(sync.elapsed());
        }
    });
    (std::mem::take(&mut *lock(&acks)), syncs)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

/// Posts from ten connections as fast as they are answered; one that is refused waits a little.
fn sustained(instance: &Instance, bodies: &[Body]) {
    let (cpu, clock) = (instance.cpu(), Stopwatch::start());
    let (acked, refused) = std::thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let mut bodies = bodies.to_vec();
                scope.spawn(move || post_for(&instance.webhook, &mut bodies, 2 + number))
            })
            .collect();
        let ended = connections.into_iter().map(|one| one.join().expect("it ends"));
        ended.fold((0, 0), |sum, one: (u64, u64)| (sum.0 + one.0, sum.1 + one.1))
    });
    let (wall, cpu) = (clock.elapsed().as_secs_f64(), (instance.cpu() - cpu).as_secs_f64());
    let events = (acked * BATCH as u64) as f64;
    println!("{:<44}{:>8.0}  wanted 40,000", "10 connections, events/s by the wall", events / wall);
    println!("{:<44}{:>8.0}", "  on two cores of its own, by CPU time", 2.0 * events / cpu);
    println!("{:<44}{:>8.2}", "  cores that it had", cpu / wall);
    println!("{:<44}{refused:>8}  of {} POSTs\n", "  answered 503 and sent again", acked + refused);
    memory(instance, "under this load");
}

fn post_for(address: &str, bodies: &mut [Body], connection: u32) -> (u64, u64) {
    let (mut client, clock) = (Client::connect(address), Stopwatch::start());
    let (mut acked, mut refused, mut counter) = (0, 0, 0);
    for number in (connection as usize * 7).. {
        let place = number % bodies.len();
        bodies[place].renew(connection, &mut counter);
        while client.post(&bodies[place]).0 != 200 {
            refused += 1;
            pause(Duration::from_millis(20));
        }
        acked += 1;
        if clock.elapsed() >= SUSTAINED {
            break;
        }
    }
    (acked, refused)
}

/// What it costs when nothing comes.
fn idle() {
    let dir = directory();
    std::fs::write(dir.path().join("audit.log"), b"").expect("the directory can be written");
    let instance = Instance::start(dir.path(), &file_sink(dir.path(), "events, alerts"));
    pause(Duration::from_secs(3));
    let before = instance.cpu();
    pause(IDLE);
    let cpu = (instance.cpu() - before).as_secs_f64();
    let share = cpu / IDLE.as_secs_f64() * 100.0;
    println!("{:<44}{share:>8.2}  less than 1; {cpu:.2} CPU s", "idle for 20 s, % of a core");
    memory(&instance, "idle");
    println!();
}

/// A sink that does not answer, and what memory that takes; then a start with all of it.
fn backlog(bodies: &[Body]) {
    let wanted = std::env::var("KUBEWITNESS_BENCH_BACKLOG_BYTES").ok();
    let wanted = wanted.and_then(|text| text.parse().ok()).unwrap_or(BACKLOG_BYTES);
    let dir = directory();
    // Connections wait in its queue for ever.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = deaf.local_addr().expect("it listens");
    std::fs::write(dir.path().join("token"), "token").expect("the directory can be written");
    let sink = format!(
        "  - {{type: splunk, name: deaf, records: [events, alerts], url: 'http://{address}', \
         token: {{file: {}/token}}}}",
        dir.path().display()
    );
    let instance = Instance::start(dir.path(), &sink);
    let mut client = Client::connect(&instance.webhook);
    let (mut bodies, mut counter, mut posts) = (bodies.to_vec(), 0, 0);
    loop {
        let number = posts as usize % bodies.len();
        bodies[number].renew(99, &mut counter);
        while client.post(&bodies[number]).0 != 200 {
            pause(Duration::from_millis(20));
        }
        posts += 1;
        if posts % 256 == 0 && instance.metric("kubewitness_spool_bytes") >= wanted as f64 {
            break;
        }
    }
    let held = instance.metric("kubewitness_spool_bytes") / 1e9;
    memory(&instance, &format!("{held:.1} GB in the spool for a deaf sink"));
    drop(instance);
    let clock = Stopwatch::start();
    let instance = Instance::start(dir.path(), &sink);
    let took = clock.elapsed().as_secs_f64();
    memory(&instance, &format!("killed and started with it, in {took:.1} s"));
}

fn memory(instance: &Instance, when: &str) {
    let megabytes = |name: &str| instance.memory(name) as f64 / 1e6;
    let (now, peak) = (megabytes("VmRSS"), megabytes("VmHWM"));
    println!("{:<44}{now:>8.0}  peak {peak:.0}; wanted 100", format!("resident MB, {when}"));
}

/// Median, 99th of a hundred, and most, in milliseconds.
fn percentiles(times: &mut [Duration]) -> [f64; 3] {
    times.sort();
    let at = |share: f64| {
        let place = (times.len() as f64 * share).ceil() as usize;
        times[place.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
    };
    [at(0.5), at(0.99), at(1.0)]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
