//! Passes bytes on, as an instance must that stands between a client and Redis, and does nothing else: what only the way costs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Bytes that are passed on at one time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Starts a relay to a server, and gives its address. It ends with the process.
pub(super) fn start(server: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((server.ip(), 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client whose connection cannot be passed on sees it closed.
            let _ = connect(client, server);
        }
    });
    Ok(address)
}

fn connect(client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || pass_on(from_client, to_server));
    thread::spawn(move || pass_on(server, client));
    Ok(())
}

/// Until one side ends; then the other does too.
fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
