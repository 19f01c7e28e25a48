//! A receiver of syslog that fails by a seeded schedule.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::pipeline::tests::faults::{Random, Stored};

/// What befalls one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Accepted, and reset.
    Reset,
    /// Accepted, and closed without a look at it.
    Close,
    /// So many bytes are read, then it is reset.
    Part(usize),
    /// So many bytes are read, then it is closed, as the kernel does for a process that dies.
    ClosedPart(usize),
    /// Read to its end, then reset.
    Unconfirmed,
}

/// The receiver.
pub(crate) struct Far {
    tls: Option<TlsAcceptor>,
    is_counted: bool,
    state: Mutex<State>,
}

struct State {
    random: Random,
    faults_left: usize,
    connections: usize,
    stored: Vec<Stored>,
}

impl Far {
    /// Starts one that meets so many faults; returns it with its port. Messages stand behind their
    /// length, or each on a line.
    pub(crate) async fn start(
        tls: Option<TlsAcceptor>,
        is_counted: bool,
        seed: u64,
        faults_left: usize,
    ) -> (Arc<Far>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { random: Random(seed), faults_left, connections: 0, stored: Vec::new() };
        let far = Arc::new(Far { tls, is_counted, state: Mutex::new(state) });
        let own = Arc::clone(&far);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&own).serve(stream));
            }
        });
        (far, port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state().connections
    }

    /// What it has read, in the order in which it came.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.state().stored.clone()
    }

    fn draw(&self) -> Fault {
        let mut state = self.state();
        state.connections += 1;
        if state.faults_left == 0 || state.random.below(10) < 4 {
            return Fault::None;
        }
        state.faults_left -= 1;
        let bytes = state.random.below(3_000);
        let faults = [
            Fault::Reset,
            Fault::Close,
            Fault::Part(bytes),
            Fault::ClosedPart(bytes),
            Fault::Unconfirmed,
        ];
        faults[state.random.below(faults.len())]
    }

    async fn serve(self: Arc<Far>, stream: TcpStream) {
        let fault = self.draw();
        if fault == Fault::Reset {
            stream.set_zero_linger().unwrap();
            return;
        }
        let Some(acceptor) = &self.tls else {
            let mut stream = stream;
            let is_kind = self.receive(&mut stream, fault).await;
            if !is_kind {
                stream.set_zero_linger().unwrap();
            }
            return;
        };
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let is_kind = self.receive(&mut stream, fault).await;
        if !is_kind {
            stream.get_ref().0.set_zero_linger().unwrap();
        } else if fault == Fault::None {
            // A receiver that is killed says no farewell.
            let _ = stream.shutdown().await;
        }
    }

    /// Reads as much as the fault has it; whether the connection is closed in peace.
    async fn receive(&self, stream: &mut (impl AsyncRead + Unpin), fault: Fault) -> bool {
        let bytes_max = match fault {
            Fault::Close => return true,
            Fault::Part(bytes) | Fault::ClosedPart(bytes) => bytes,
            _ => usize::MAX,
        };
        let mut bytes = Vec::new();
        while bytes.len() < bytes_max {
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                _ => break,
            }
        }
        let messages = if self.is_counted { counted(&bytes) } else { lines(&bytes) };
        let texts = messages.iter().map(|message| String::from_utf8_lossy(message));
        let stored: Vec<Stored> = texts.map(|text| Stored::of(&text, "")).collect();
        self.state().stored.extend(stored);
        !matches!(fault, Fault::Part(_) | Fault::Unconfirmed)
    }
}

/// Whole messages, each behind its length.
fn counted(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(blank) = bytes.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let Some(message) = bytes.get(blank + 1..blank + 1 + length) else { break };
        messages.push(message);
        bytes = &bytes[blank + 1 + length..];
    }
    messages
}

/// Whole lines.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| line.ends_with(b"\n")).collect()
}
