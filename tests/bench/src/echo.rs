//! The raw TCP echo: the least a round trip of these bytes can cost on this machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::child::OwnChild;
use iii_stream::bench::wire::{Session, Wire, connect, unexpected};

/// The echo server: prints its address, then serves until its standard input ends.
///
/// One blocking thread a connection: a wake-up less than an event loop needs.
pub(crate) fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    // The parent holds the other end; when it dies, so does this process.
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// Starts this program again as the echo server.
pub(crate) fn start() -> io::Result<(OwnChild, SocketAddr)> {
    let mut child = OwnChild::new(
        Command::new(std::env::current_exe()?)
            .arg("echo-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    if let Some(stdout) = child.handle().stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let address = line
        .trim()
        .parse()
        .map_err(|error| io::Error::other(format!("echo server: {error}")))?;
    Ok((child, address))
}

/// The echo server and the bytes to send it.
pub(crate) struct EchoWire {
    pub(crate) address: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// One echo connection, for one call at a time.
pub(crate) struct EchoSession {
    bytes: Vec<u8>,
    slot: usize,
}

impl Wire for EchoWire {
    type Session = EchoSession;

    fn open(&self, _connection: usize) -> io::Result<(TcpStream, EchoSession)> {
        let bytes = self.bytes.clone();
        Ok((connect(self.address)?, EchoSession { bytes, slot: 0 }))
    }
}

impl Session for EchoSession {
    fn call(&mut self, slot: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        self.slot = slot;
    }

    fn scan(
        &mut self,
        input: &[u8],
        done: &mut Vec<usize>,
        _out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        if input.len() < self.bytes.len() {
            return Ok(0);
        }
        if input != self.bytes {
            return Err(unexpected("not what was sent", input));
        }
        done.push(self.slot);
        Ok(input.len())
    }
}
